// SPDX-License-Identifier: MIT
// Causal attention of a block of queries over the rows of one KV head: the inner loops of prefill. Knows rows, not
// graphs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvsieve {

/// Most queries that attend together.
inline constexpr int32_t kQueryBlock = 64;

/// Queries of one head. Query i sees the rows 0 .. min(first + i, n_rows - 1).
struct QueryBlock {
    int32_t head_dim = 0;
    int32_t n_rows = 0;
    int32_t first = 0;             ///< 0 .. n_rows - 1
    int32_t n_query = 0;           ///< 1 .. kQueryBlock
    const uint16_t * k = nullptr;  ///< f16 rows [n_rows][head_dim]
    const uint16_t * v = nullptr;  ///< null: no output is wanted
    const float * q = nullptr;     ///< queries, q_stride floats apart
    size_t q_stride = 0;
    float scale = 1.0F;     ///< of q k^T
    float * out = nullptr;  ///< receives softmax(scale q k^T) v, queries out_stride floats apart
    size_t out_stride = 0;
    /// Column sums of the softmax attention A, [n_rows], added to what is there; null: not wanted.
    float * sums = nullptr;                  ///< of sum_weights[i] A[i]
    const float * sum_weights = nullptr;     ///< [n_query]; null: 1
    float * squares = nullptr;               ///< of square_weights[i] A[i]^2
    const float * square_weights = nullptr;  ///< [n_query]; null: 1
};

/// Floats of working memory for blocks that see n_rows rows.
[[nodiscard]] size_t query_block_floats(int32_t head_dim, int32_t n_rows) noexcept;

/// A query's output is the same in whatever block it stands. `work`: query_block_floats() floats at an address that is
/// a multiple of 64. Pure; any number of threads.
void attend_block(const QueryBlock & block, float * work) noexcept;

/// Name of the instruction set that runs, as Highway calls it.
[[nodiscard]] const char * prefill_kernel_target() noexcept;

}  // namespace kvsieve
