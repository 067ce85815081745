// SPDX-License-Identifier: MIT
// Looks at every number of an array, at the speed of memory. Numbers are finite; both zeros are equal.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvsieve {

/// Room that scan results need behind their last element.
inline constexpr size_t kScanSlack = 1;

/// Copies the values in [low, high] to `out` in their order, and returns how many; adds to `n_below` how many are less
/// than `low`. out: n + kScanSlack doubles.
size_t scan_between(const double * values, size_t n, double low, double high, double * out, int64_t & n_below);

/// Writes first + i for every i with values[i] > limit, ascending, and returns how many. out: n + kScanSlack.
size_t scan_above(const double * values, size_t n, double limit, int32_t first, int32_t * out);

}  // namespace kvsieve
