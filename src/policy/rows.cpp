// SPDX-License-Identifier: MIT
#include "policy/rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "kvsieve/error.h"
#include "policy/scorer.h"

namespace kvsieve {
namespace {

void observe_rows(Traits & traits, RowsWanted wanted) {
    if (traits.rows != RowsWanted::none && traits.rows != wanted) {
        throw Error(ErrorCode::invalid_argument,
                    "one part observes the attention rows of the last tokens and the other those of the text behind "
                    "the image; expected parts that observe the same rows");
    }
    traits.rows = wanted;
}

}  // namespace

void observe_window(Traits & traits, int32_t window) {
    observe_rows(traits, RowsWanted::last_window);
    traits.window = std::max(traits.window, window);
}

void observe_text_after_visual(Traits & traits) {
    observe_rows(traits, RowsWanted::text_after_visual);
}

void check_window(const PromptShape & prompt, int32_t window) {
    if (prompt.n_tokens <= window) {
        throw Error(ErrorCode::invalid_argument, "the prompt has " + std::to_string(prompt.n_tokens) +
                                                     " tokens; expected more than the observation window of " +
                                                     std::to_string(window));
    }
}

void for_each_row(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                  std::span<const int32_t> positions,
                  const std::function<void(size_t h, std::span<const float> row)> & visit, size_t max_block_floats) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
    if (!std::includes(obs.row_positions.begin(), obs.row_positions.end(), positions.begin(), positions.end())) {
        throw Error(ErrorCode::bad_input, "the observation of layer " + std::to_string(il) +
                                              " lacks attention rows in array rows; the method needs those of " +
                                              std::to_string(positions.size()) + " positions from " +
                                              std::to_string(positions.front()) + " to " +
                                              std::to_string(positions.back()));
    }
    const size_t block = std::max<size_t>(1, max_block_floats / (n_head * n_tokens));
    std::vector<float> rows;  // [H, n, T]
    for (size_t first = 0; first < positions.size(); first += block) {
        const size_t n = std::min(block, positions.size() - first);
        obs.rows(positions.subspan(first, n), rows);
        (void)observed(rows, n_head * n * n_tokens, "rows", il);
        for (size_t q = 0; q < n; ++q) {
            for (size_t h = 0; h < n_head; ++h) {
                visit(h, std::span<const float>(rows).subspan((h * n + q) * n_tokens, n_tokens));
            }
        }
    }
}

std::vector<int32_t> window_positions(const PromptShape & prompt, int32_t window) {
    std::vector<int32_t> out(static_cast<size_t>(window));
    std::iota(out.begin(), out.end(), prompt.n_tokens - window);
    return out;
}

std::vector<double> window_attention(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                                     int32_t window) {
    const auto n = static_cast<size_t>(prompt.n_tokens - window);
    std::vector<double> out(static_cast<size_t>(prompt.n_head) * n, 0.0);
    for_each_row(prompt, il, obs, window_positions(prompt, window), [&](size_t h, std::span<const float> row) {
        double * const sum = out.data() + h * n;
        for (size_t k = 0; k < n; ++k) {
            sum[k] += static_cast<double>(row[k]);
        }
    });
    for (double & x : out) {
        x /= static_cast<double>(window);
    }
    return out;
}

std::vector<double> last_row_mean(const PromptShape & prompt, int32_t il, const LayerObservation & obs) {
    std::vector<double> out(static_cast<size_t>(prompt.n_tokens), 0.0);
    for_each_row(prompt, il, obs, window_positions(prompt, 1), [&](size_t, std::span<const float> row) {
        for (size_t k = 0; k < out.size(); ++k) {
            out[k] += static_cast<double>(row[k]);
        }
    });
    for (double & x : out) {
        x /= static_cast<double>(prompt.n_head);
    }
    return out;
}

std::vector<double> average_pool(std::span<const double> x, int32_t kernel) {
    const auto n = static_cast<int64_t>(x.size()), half = static_cast<int64_t>(kernel / 2);
    std::vector<double> out(x.size());
    for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t j = std::max<int64_t>(0, i - half); j <= std::min(n - 1, i + half); ++j) {
            sum += x[static_cast<size_t>(j)];
        }
        out[static_cast<size_t>(i)] = sum / static_cast<double>(kernel);
    }
    return out;
}

std::vector<double> group_mean(const PromptShape & prompt, std::span<const double> heads) {
    const size_t n = heads.size() / static_cast<size_t>(prompt.n_head);
    const auto n_group = static_cast<size_t>(prompt.n_head_kv);
    const auto n_shared = static_cast<size_t>(prompt.n_head / prompt.n_head_kv);  // R
    std::vector<double> out(n_group * n, 0.0);
    for (size_t g = 0; g < n_group; ++g) {
        double * const mean = out.data() + g * n;
        for (size_t r = 0; r < n_shared; ++r) {
            const double * const head = heads.data() + (g * n_shared + r) * n;
            for (size_t k = 0; k < n; ++k) {
                mean[k] += head[k];
            }
        }
        for (size_t k = 0; k < n; ++k) {
            mean[k] /= static_cast<double>(n_shared);
        }
    }
    return out;
}

void pool_heads(const PromptShape & prompt, std::vector<double> & heads, int32_t kernel) {
    const size_t n = heads.size() / static_cast<size_t>(prompt.n_head);
    for (size_t at = 0; at < heads.size(); at += n) {
        const std::vector<double> pooled = average_pool(std::span(heads).subspan(at, n), kernel);
        std::copy(pooled.begin(), pooled.end(), heads.begin() + static_cast<std::ptrdiff_t>(at));
    }
}

std::vector<double> pooled_window_attention(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                                            int32_t window, int32_t kernel) {
    std::vector<double> heads = window_attention(prompt, il, obs, window);
    pool_heads(prompt, heads, kernel);
    return group_mean(prompt, heads);
}

std::vector<double> with_protected(const PromptShape & prompt, std::span<const double> others, int32_t n, bool first) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_other = n_tokens - static_cast<size_t>(n);
    const size_t n_set = others.size() / n_other;
    const double most = *std::max_element(others.begin(), others.end());
    const double best = std::max(1 + most, std::nextafter(most, HUGE_VAL));  // 1 + 1e300 is 1e300
    std::vector<double> out(n_set * n_tokens, best);
    for (size_t g = 0; g < n_set; ++g) {
        const auto set = others.subspan(g * n_other, n_other);
        std::copy(set.begin(), set.end(),
                  out.begin() + static_cast<std::ptrdiff_t>(g * n_tokens + (first ? static_cast<size_t>(n) : 0)));
    }
    return out;
}

ParamSpec window_param(int32_t def) {
    return {.name = "window",
            .help = "prompt tokens at the end whose attention scores the others, and which stay",
            .def = static_cast<double>(def),
            .min = 1,
            .max = 65536,
            .integer = true};
}

ParamSpec kernel_param(int32_t def) {
    return {.name = "kernel",
            .help = "positions that one score is pooled over",
            .def = static_cast<double>(def),
            .min = 1,
            .max = 255,
            .integer = true,
            .odd = true};
}

}  // namespace kvsieve
