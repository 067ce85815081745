// SPDX-License-Identifier: MIT
// How unequally attention is spread over the tokens of a layer (PrefixKV, section 3.2).
#pragma once

#include <span>
#include <vector>

namespace kvsieve {

/// Lorenz curve of non-negative importances: entry i of n_points is the share of the sum that the i / (n_points - 1)
/// least important ones hold, linear between tokens; from 0 to 1. The diagonal where the sum is 0.
[[nodiscard]] std::vector<double> lorenz_curve(std::span<const float> importance, int n_points);
/// 1 - 2 x the area below the Lorenz curve of all tokens: 0 = all equal, (n - 1) / n = one token holds everything.
[[nodiscard]] double gini(std::span<const float> importance);

}  // namespace kvsieve
