// SPDX-License-Identifier: MIT
// Causal attention of a block of queries over the rows of one KV head: the inner loops of prefill. Knows rows, not
// graphs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvsieve {

/// Most queries that attend together.
inline constexpr int32_t kQueryBlock = 64;

/// Consecutive queries of one head. Query i stands at position first + i and sees the rows 0 .. first + i.
struct QueryBlock {
    int32_t head_dim = 0;
    int32_t first = 0;
    int32_t n_query = 0;           ///< 1 .. kQueryBlock
    const uint16_t * k = nullptr;  ///< f16 rows [first + n_query][head_dim]
    const uint16_t * v = nullptr;
    const float * q = nullptr;  ///< queries, q_stride floats apart
    size_t q_stride = 0;
    float scale = 1.0F;     ///< of q k^T
    float * out = nullptr;  ///< receives softmax(scale q k^T) v, queries out_stride floats apart
    size_t out_stride = 0;
    /// If not null, receives the column sums of the softmax attention, [first + n_query].
    float * sums = nullptr;
};

/// Floats of working memory for blocks that see n_rows rows.
[[nodiscard]] size_t query_block_floats(int32_t head_dim, int32_t n_rows) noexcept;

/// A query's output is the same in whatever block it stands. `work`: query_block_floats() floats at an address that is
/// a multiple of 64. Pure; any number of threads.
void attend_block(const QueryBlock & block, float * work) noexcept;

/// Name of the instruction set that runs, as Highway calls it.
[[nodiscard]] const char * prefill_kernel_target() noexcept;

}  // namespace kvsieve
