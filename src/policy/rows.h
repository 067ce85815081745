// SPDX-License-Identifier: MIT
// Reading attention rows in blocks, and what methods with an observation window make of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Floats of attention rows that are asked for at a time (16 MiB).
inline constexpr size_t kMaxBlockFloats = size_t{4} << 20U;

/// Adds to the traits that the last `window` rows are observed (the widest window asked for), or those of the text
/// behind the last visual token. Throws Error{invalid_argument} where both are asked for: they are not one capture.
void observe_window(Traits & traits, int32_t window);
void observe_text_after_visual(Traits & traits);

/// Throws Error{invalid_argument} unless the prompt is longer than the window.
void check_window(const PromptShape & prompt, int32_t window);

/// Calls visit(h, row) for the softmax rows [T] of the queries at `positions`, query by query and head by head within
/// a query, so that what is summed in this order does not depend on the block size, which bounds memory.
/// Throws Error{bad_input} where a row is not observed.
void for_each_row(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                  std::span<const int32_t> positions,
                  const std::function<void(size_t h, std::span<const float> row)> & visit,
                  size_t max_block_floats = kMaxBlockFloats);

/// Positions T - window .. T - 1.
[[nodiscard]] std::vector<int32_t> window_positions(const PromptShape & prompt, int32_t window);

/// Mean over the last `window` queries of each query head's attention. [H, T - window]
[[nodiscard]] std::vector<double> window_attention(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                                                   int32_t window);

/// Attention of the last prompt token, mean over all query heads. [T]
[[nodiscard]] std::vector<double> last_row_mean(const PromptShape & prompt, int32_t il, const LayerObservation & obs);

/// Average pool, stride 1, zeros beyond both ends, always divided by `kernel` (odd).
[[nodiscard]] std::vector<double> average_pool(std::span<const double> x, int32_t kernel);

/// average_pool() of every query head, in place. [H, n]
void pool_heads(const PromptShape & prompt, std::vector<double> & heads, int32_t kernel);

/// Mean over the R query heads of each KV head, [H, n] -> [G, n].
[[nodiscard]] std::vector<double> group_mean(const PromptShape & prompt, std::span<const double> heads);

/// SnapKV's attention of the window (METHODS 3, steps 1 to 3), [G, T - window].
[[nodiscard]] std::vector<double> pooled_window_attention(const PromptShape & prompt, int32_t il,
                                                          const LayerObservation & obs, int32_t window, int32_t kernel);

/// Scores [G, T] from scores [G, T - n] of the others, where the `first` or else the last n tokens are protected: they
/// get 1 + the largest score of all.
[[nodiscard]] std::vector<double> with_protected(const PromptShape & prompt, std::span<const double> others, int32_t n,
                                                 bool first);

/// The parameters of an observation window and of its pooling.
[[nodiscard]] ParamSpec window_param(int32_t def);
[[nodiscard]] ParamSpec kernel_param(int32_t def);

}  // namespace kvsieve
