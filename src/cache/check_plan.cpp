// SPDX-License-Identifier: MIT
#include "cache/check_plan.h"

#include <algorithm>
#include <map>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {

void check_layer_plan(const LayerPlan & plan, int32_t il, int32_t n_head_kv, int32_t n_positions) {
    const auto refuse = [&](const std::string & what) {
        throw Error(ErrorCode::invalid_argument, "plan: layer " + std::to_string(il) + what);
    };
    if (plan.kept.size() != 1 && plan.kept.size() != static_cast<size_t>(n_head_kv)) {
        refuse(" has " + std::to_string(plan.kept.size()) + " lists of positions, expected 1 or " +
               std::to_string(n_head_kv) + " (one per KV head)");
    }
    for (size_t g = 0; g < plan.kept.size(); ++g) {
        int32_t before = -1;
        for (const int32_t position : plan.kept[g]) {
            const std::string where = ", list " + std::to_string(g) + ": position " + std::to_string(position);
            if (position < 0 || position >= n_positions) {
                refuse(where + " is outside [0, " + std::to_string(n_positions) + ")");
            }
            if (position <= before) {
                refuse(where + " follows " + std::to_string(before) + ", expected ascending and unique");
            }
            before = position;
        }
    }
    int32_t before = -1;
    for (const Merge & merge : plan.merged) {
        const std::string where =
            " merges position " + std::to_string(merge.from) + " into " + std::to_string(merge.into);
        if (merge.from < 0 || merge.from >= n_positions || merge.from <= before) {
            refuse(where + ", expected ascending positions in [0, " + std::to_string(n_positions) + ")");
        }
        before = merge.from;
        for (const std::vector<int32_t> & kept : plan.kept) {
            if (std::binary_search(kept.begin(), kept.end(), merge.from) ||
                !std::binary_search(kept.begin(), kept.end(), merge.into)) {
                refuse(where + ", expected a dropped row and one that every KV head keeps");
            }
        }
    }
}

std::vector<MergeGroup> merge_groups(const LayerPlan & plan) {
    std::map<int32_t, std::vector<int32_t>> by_anchor;
    for (const Merge & merge : plan.merged) {
        by_anchor[merge.into].push_back(merge.from);
    }
    std::vector<MergeGroup> groups;
    groups.reserve(by_anchor.size());
    for (auto & [into, from] : by_anchor) {
        groups.push_back({into, std::move(from)});
    }
    return groups;
}

}  // namespace kvsieve
