// SPDX-License-Identifier: MIT
// Select: which positions survive. The only place that ranks scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/order.h"

namespace kvsieve {

/// Which positions compete for a budget; all others are always kept.
enum class Scope {
    all,     ///< every position
    middle,  ///< all but the first and the last
    visual,  ///< visual tokens
};

/// Rows that a scorer gives the highest scores of all, whatever it observes: its sinks, its window.
struct Protected {
    int32_t first = 0;  ///< how many at the front
    int32_t last = 0;   ///< how many at the end
};

/// The rows of one prompt as budgets see them. Budgets count rows of the scope: of all rows (also where the ends do
/// not compete), or of the visual ones.
struct Field {
    Scope scope = Scope::all;
    std::vector<uint8_t> counted = {};   ///< [T], 1 = budgets count it
    std::vector<uint8_t> competes = {};  ///< [T], 1 = can be dropped
    std::vector<uint8_t> weighs = {};    ///< [T], 1 = counted and not protected by the scorer: its score is comparable
    int64_t n_rows = 0;                  ///< N, counted rows
    int64_t n_protected = 0;             ///< counted rows that the scope or the scorer keeps
    int32_t n_threads = 1;               ///< that may work on the layers; results do not depend on it
};
[[nodiscard]] Field make_field(const PromptShape & prompt, Scope scope, const Protected & by_scorer);

/// Rows that a layer keeps of those that count, protected ones included: one number for all KV heads or one per head.
/// It may lie below the number of protected rows; the selection keeps these all the same.
struct LayerBudget {
    std::vector<int64_t> n_kept;     ///< [1 or G]
    int64_t n_recent = 0;            ///< so many of the counted rows at the end are kept whatever their score
    std::vector<KvType> types = {};  ///< LayerPlan::types
    std::vector<Cut> cuts = {};  ///< where the selection cuts each head's scores, if the allocator has found that out
};

/// Drops the `n_drop` (all, if there are fewer) values that come first in the order (score ascending, position
/// ascending) and returns all other positions of the array, ascending. So among equal scores the later survives.
/// `known` is the cut, where a caller knows it; one that drops another number is not used.
[[nodiscard]] std::vector<int32_t> keep_best(const Values & score, int64_t n_drop, CutScratch & scratch,
                                             const Cut * known = nullptr);

/// The layer's plan: one list per set of scores or per budget, whichever are more.
[[nodiscard]] LayerPlan select_layer(const PromptShape & prompt, const Field & field, const LayerScore & score,
                                     const LayerBudget & budget, CutScratch & scratch);

/// What the rows that select_layer() keeps cost, summed over its lists, in 64ths of an f16 row (row_cost(); without row
/// types each row counts as one); `n_set` sets of scores.
[[nodiscard]] int64_t cost_selected(const PromptShape & prompt, const Field & field, size_t n_set,
                                    const LayerBudget & budget);

}  // namespace kvsieve
