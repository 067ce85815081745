// SPDX-License-Identifier: MIT
// A cache of fixed size while tokens are generated, on top of any method.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// Which rows leave after each generated token so that no set of rows (a layer's, or a KV head's where heads keep
/// their own) holds more than `cap` rows. One object per sequence.
///
/// After the forward pass of a generated token, for every layer and every set in it, the engine calls evict() with the
/// rows that the set holds, the new one included, in any order; rows are known by their positions, so that the caller
/// may move, drop or take back rows between calls as it likes. It then removes the returned slots.
///
/// Attention is that of the newest token on the set's rows, after softmax: the mean over all H query heads where one
/// set serves the layer, the mean over the R heads of the group where the set is a KV head's.
///
/// - `tova` (arXiv 2401.06104): the row with the lowest attention of the newest token leaves. No state. The newest row
///   itself may leave, as in the authors' code.
/// - `h2o` (arXiv 2306.14048): attention is accumulated per row; of the rows that are not among the newest cap / 2, the
///   one with the lowest sum leaves. State: 12 bytes per row held. Sums begin with 0 at the first call.
/// - `window` (arXiv 2309.17453): the oldest row leaves, except that rows at the positions 0 .. 3 (as far as
///   the method kept them, and at most cap - 1) stay: without these attention sinks the model breaks down.
///
/// Ties: the row at the lower position leaves. A set that starts above the cap comes down to it at the first call.
///
/// Threads: calls for different (layer, set) may run at the same time.
class DecodePolicy {
  public:
    virtual ~DecodePolicy() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;
    [[nodiscard]] virtual int32_t cap() const = 0;
    /// False: evict() reads no attention, and the engine need not compute it.
    [[nodiscard]] virtual bool wants_attention() const = 0;
    /// Writes the slots that leave, descending, into `slots` (empty if the set is within the cap). `positions` [n_rows]
    /// in slot order; `attention` [n_rows] likewise, or empty where it is not wanted.
    /// Throws Error{invalid_argument} for an index or a size that does not fit.
    virtual void evict(int32_t il, int32_t set, std::span<const int32_t> positions, std::span<const float> attention,
                       std::vector<int32_t> & slots) = 0;
    /// Forgets everything: the next sequence.
    virtual void reset() = 0;
    /// A copy with its state, for a copy of the cache.
    [[nodiscard]] virtual std::unique_ptr<DecodePolicy> clone() const = 0;
};

/// {"default", "none", "tova", "h2o", "window"}: `default` is what the method itself orders (DecodeRule), `none` is no
/// eviction at all while decoding.
[[nodiscard]] std::span<const std::string_view> decode_policies();

/// `cap` rows per set, at least 1 (0 for `default` and `none`, which give a null pointer). `n_set` is 1, or G where the
/// plan is per KV head. Throws Error{invalid_argument} for an unknown name or a cap that does not belong.
[[nodiscard]] std::unique_ptr<DecodePolicy> make_decode_policy(std::string_view name, int32_t cap, int32_t n_layer,
                                                               int32_t n_set);

}  // namespace kvsieve
