// SPDX-License-Identifier: MIT
// Select: which positions survive. The only place that ranks scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/allocator.h"

namespace kvsieve {

/// Which positions compete for a budget; all others are always kept.
enum class Scope {
    all,     ///< every position
    middle,  ///< all but the first and the last
    visual,  ///< visual tokens
};

/// [T], 1 = competes.
[[nodiscard]] std::vector<uint8_t> competing(const PromptShape & prompt, Scope scope);

/// Drops the `n_drop` (all, if there are fewer) competing positions that come first in the order (score
/// ascending, position ascending) and returns the others, ascending. So among equal scores the later survives.
[[nodiscard]] std::vector<int32_t> keep_best(std::span<const double> score, std::span<const uint8_t> competes,
                                             int64_t n_drop);

/// The layer's plan: one list per set of scores or per budget, whichever are more.
[[nodiscard]] LayerPlan select_layer(const PromptShape & prompt, Scope scope, const LayerScore & score,
                                     const LayerBudget & budget);

}  // namespace kvsieve
