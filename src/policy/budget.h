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

}  // namespace kvsieve
