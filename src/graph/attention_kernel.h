// SPDX-License-Identifier: MIT
// Attention of one new token over the rows of one KV head: the inner loops of decoding. Knows rows, not graphs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvsieve/kv_cache.h"

namespace kvsieve {

/// Slots that one unit of work covers. The split is fixed, so that results do not depend on threads or neighbours.
inline constexpr int32_t kRangeSlots = 256;

/// Up to kRangeSlots consecutive rows of one KV head, and the queries of the heads that share it.
struct AttendRange {
    KvType type = KvType::f16;
    int32_t head_dim = 0;         ///< d; a multiple of 32 for quantised rows
    int32_t n_rows = 0;           ///< 1 .. kRangeSlots
    int32_t n_query = 0;          ///< query heads of the group
    const uint8_t * k = nullptr;  ///< first key row; rows lie row_bytes apart
    const uint8_t * v = nullptr;
    size_t row_bytes = 0;
    const float * q = nullptr;       ///< [n_query][d], in the rotation of the rows
    float scale = 1.0F;              ///< of q k^T
    const uint8_t * next = nullptr;  ///< keys that this thread will read next, or null; a hint only
};

/// What a range contributes to one query: acc [d] = sum of exp(s - max) v, not divided.
struct PartialHead {
    float max;
    float sum;  ///< of exp(s - max)
};

/// Floats of one query's partial result: PartialHead, then acc.
[[nodiscard]] constexpr size_t partial_floats(int32_t head_dim) noexcept {
    return 2 + static_cast<size_t>(head_dim);
}

/// Writes partial [n_query][partial_floats(d)]. `weights`, if not null, receives exp(s - max) of each row, queries
/// `weights_stride` floats apart. Pure; any number of threads.
void attend_range(const AttendRange & range, float * partial, float * weights, size_t weights_stride) noexcept;

/// Joins the partial results of one query in the order given (stride in floats between them) into out [d].
/// Returns the maximum and the sum over all ranges.
PartialHead merge_ranges(const float * partial, size_t stride, int32_t n_range, int32_t head_dim, float * out) noexcept;

/// Turns the weights of one query over an extent of n_rows rows, as attend_range() wrote them range by range, into the
/// softmax over all of it. `whole` is what merge_ranges() returned for the same partial results.
void normalise_weights(const float * partial, size_t stride, const PartialHead & whole, int32_t n_rows,
                       float * weights) noexcept;

/// Name of the instruction set that runs, as Highway calls it: "AVX2", "AVX3", "NEON", ...
[[nodiscard]] const char * attention_kernel_target() noexcept;

}  // namespace kvsieve
