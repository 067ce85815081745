// SPDX-License-Identifier: MIT
// The parts of AirCache (METHODS 9).
#pragma once

#include <memory>

#include "policy/allocator.h"
#include "policy/rows.h"
#include "policy/scorer.h"

namespace kvsieve {

/// Queries whose attention AirCache averages.
enum class EliteQueries { elite, last, all };
/// AirCache's visual scores, with the stat `elite`. The block size bounds memory and changes nothing else.
[[nodiscard]] std::unique_ptr<Scorer> elite_scorer(double alpha, EliteQueries queries,
                                                   size_t max_block_floats = kMaxBlockFloats);

/// What AirCache weighs layers by.
enum class LayerWeights { both, strength, skew, uniform };
/// Budgets by the strength and the skewness of the scores that weigh, exact in total.
[[nodiscard]] std::unique_ptr<Allocator> strength_share_allocator(double keep, LayerWeights weights);

}  // namespace kvsieve
