// SPDX-License-Identifier: MIT
// One decode step's attention for several sequences: appends one row to each cache, then attends with the kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"
#include "graph/decode_attention.h"

namespace kvsieve {

/// Softmax attention of the newest token on the rows held, its own included: [L], each [H][n_rows of the head's KV
/// head] in slot order.
using NewestAttention = std::vector<std::vector<float>>;

/// A sequence that processes one new token.
struct Lane {
    RaggedKvCache * cache = nullptr;
    int32_t position = 0;                ///< of the token; behind all positions held
    NewestAttention * newest = nullptr;  ///< receives its attention; nullptr: not kept
};

/// Caches may differ in row type and in every extent's length. A lane's result does not depend on the other lanes.
/// Must outlive the computation of the graph.
class LaneAttention {
  public:
    /// Makes room for one row in every cache (Error{runtime} when memory is out).
    LaneAttention(std::vector<Lane> lanes, const DecoderConfig & config);

    /// Adds nodes that append k and v [head_dim, n_head_kv, n_lane] to layer `il` and attend with q [head_dim, n_head,
    /// n_lane]. Returns [head_dim * n_head, n_lane].
    ggml_tensor * build(const GraphBuilder & b, int32_t il, const Qkv & qkv);

    /// After the computation: throws Error{runtime} if a row could not be appended.
    void check() const;

  private:
    struct Append {
        const LaneAttention * lanes = nullptr;
        int32_t il = 0;
        std::atomic<bool> failed = false;
    };
    static void append_rows(ggml_tensor * dst, int ith, int nth, void * userdata);
    static void rotate_lanes(ggml_tensor * dst, const ggml_tensor * src, int ith, int nth, void * userdata);
    static ggml_tensor * rotate(const GraphBuilder & b, ggml_tensor * x, std::vector<int32_t> & blocks);
    [[nodiscard]] std::vector<int32_t> & blocks_of(int32_t il,
                                                   KvRowsView (RaggedKvCache::*rows)(int32_t, int32_t) const);

    std::vector<Lane> lanes_;
    const DecoderConfig & config_;
    std::deque<std::vector<int32_t>> blocks_;  // each [n_lane][n_head], Hadamard blocks, 0 = none
    std::vector<std::unique_ptr<Append>> appends_;
    std::vector<std::unique_ptr<DecodeAttention>> decodes_;
};

}  // namespace kvsieve
