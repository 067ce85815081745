// SPDX-License-Identifier: MIT
#include "cache/check_plan.h"

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
}

}  // namespace kvsieve
