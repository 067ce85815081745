// SPDX-License-Identifier: MIT
// The only place where a ratio becomes a count.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvsieve {

/// floor(x + 1e-9) for x >= 0: an integer cut that binary fractions cannot rob of a token (100 * (1 - 0.9) is
/// 9.999999999999998; int() makes 9 of it, this 10).
[[nodiscard]] int64_t trunc_guarded(double x);

/// Round half to even, whatever the floating point rounding mode.
[[nodiscard]] int64_t round_half_even(double x);

/// n(T) = trunc(T * keep).
[[nodiscard]] int64_t rows_of_keep(int64_t n_tokens, double keep);

/// Shares r_l = weight_l * keep (mean weight 1), none above 1: while some share exceeds 1 it becomes 1, and
/// keep * L - (number capped) goes to the others in proportion to their weights (evenly if these are all 0).
[[nodiscard]] std::vector<double> capped_shares(std::span<const double> weights, double keep);

/// Largest remainder: counts trunc(share_l * size), then what is missing to `total` one by one to the largest
/// share_l * size - count_l (lower index first), never above `size`.
[[nodiscard]] std::vector<int64_t> largest_remainder(std::span<const double> shares, int64_t size, int64_t total);

/// Amounts a_l = (weight_l / sum) * total (equal weights if all are 0); while one exceeds `cap` it becomes `cap`, and
/// what is left of `total` goes to the others in proportion to their weights (LAVa).
[[nodiscard]] std::vector<double> capped_amounts(std::span<const double> weights, double total, double cap);

/// Shares clip((weight_l / sum) * keep * L, least, 1), not redistributed (VL-Cache). The sum must not be 0.
[[nodiscard]] std::vector<double> clipped_shares(std::span<const double> weights, double keep, double least);

/// Counts trunc((weight_l / sum) * total), cut at `cap`; what that leaves over, first of the cut, then of the total,
/// goes in equal parts to the entries below `cap`, the remainder one by one to the first of these, until nothing is
/// left or all are full (CAKE). The sum must not be 0.
[[nodiscard]] std::vector<int64_t> spread_budgets(std::span<const double> weights, int64_t total, int64_t cap);

}  // namespace kvsieve
