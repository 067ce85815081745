// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Throws Error{invalid_argument} unless the plan has 1 or n_head_kv lists, each ascending, unique and in
/// [0, n_positions), and merges dropped positions (by ascending `from`) into kept ones. `il` is for the message.
void check_layer_plan(const LayerPlan & plan, int32_t il, int32_t n_head_kv, int32_t n_positions);

/// A kept position and those merged into it.
struct MergeGroup {
    int32_t into = 0;
    std::vector<int32_t> from;  ///< ascending
};
/// A plan's merges by ascending `into`.
[[nodiscard]] std::vector<MergeGroup> merge_groups(const LayerPlan & plan);

}  // namespace kvsieve
