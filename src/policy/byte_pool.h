// SPDX-License-Identifier: MIT
// Rows and row types of many lists (a layer's, a KV head's) from one budget of bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvsieve/kv_cache.h"
#include "policy/order.h"

namespace kvsieve {

/// Scores of a list, whose square is what is lost with a row.
struct ByteList {
    Values scores;         ///< not negative
    double key_noise = 0;  ///< what an error of the keys that is as large as the keys would lose, squared
};

struct ByteShare {
    int64_t n_kept = 0;
    KvType type = KvType::f16;
};

/// Weight of the squared error of quantised values beside the square of a dropped row: dropped rows lack together,
/// errors of quantised ones cancel each other.
inline constexpr double kValueErrorWeight = 0.03;

/// Minimises what is lost with dropped rows and by the error of quantised ones: sum over the lists of the squares of
/// the dropped scores + e(type) (kValueErrorWeight x sum of the squares of the kept + key_noise), where all rows
/// together cost at most `budget`, in 64ths of an f16 row (row_cost()). One price for a byte decides over rows and
/// types of all lists. Every list gets at least `safe` times its equal share of the budget. `quantises` = false: f16
/// only.
[[nodiscard]] std::vector<ByteShare> share_bytes(std::span<const ByteList> lists, int64_t budget, double safe,
                                                 bool quantises, int32_t n_threads);

}  // namespace kvsieve
