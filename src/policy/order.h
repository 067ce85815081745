// SPDX-License-Identifier: MIT
// Orders of many scores without a comparison sort.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace kvsieve {

/// A key whose unsigned order is the order of finite doubles; both zeros get the same key.
[[nodiscard]] inline uint64_t order_key(double x) noexcept {
    const auto bits = std::bit_cast<uint64_t>(x + 0.0);  // -0.0 + 0.0 is 0.0
    const uint64_t sign = bits >> 63U;
    return bits ^ ((uint64_t{0} - sign) | (uint64_t{1} << 63U));
}

/// The double with this key.
[[nodiscard]] inline double from_order_key(uint64_t key) noexcept {
    const uint64_t sign = (key >> 63U) ^ 1U;
    return std::bit_cast<double>(key ^ ((uint64_t{0} - sign) | (uint64_t{1} << 63U)));
}

/// Where a selection cuts: of n values the lowest `n_drop` in the order (value, place) are those below `key` and the
/// first `n_tied` of those equal to it.
struct Cut {
    uint64_t key = 0;
    int64_t n_tied = 0;
};

/// The cut below which `n_drop` of the values lie, 0 < n_drop <= values.size(). `scratch` is overwritten.
[[nodiscard]] Cut find_cut(std::span<const uint64_t> keys, int64_t n_drop, std::vector<uint64_t> & scratch);

/// Radix sort, descending.
void sort_descending(std::vector<double> & values);

/// Indices of the values in ascending order, equal values in the order of their indices.
[[nodiscard]] std::vector<int32_t> stable_order(std::span<const double> values);

}  // namespace kvsieve
