// SPDX-License-Identifier: MIT
#include "policy/decode.h"

#include <algorithm>
#include <string>

#include "kvsieve/error.h"
#include "policy/budget.h"

namespace kvsieve {
namespace {

constexpr int64_t kSlotFromEnd = 25;  // of the kept prompt, as published

}  // namespace

int64_t DecodeRule::n_over(int64_t n_rows, int64_t n_processed) const {
    return trunc_guarded(std::max(0.0, static_cast<double>(n_rows) - static_cast<double>(n_processed) * (1 - rho)));
}

std::vector<DecodeRule> decode_rules(int32_t n_tokens, const Allocation & allocation,
                                     std::span<const LayerPlan> layers) {
    std::vector<DecodeRule> rules;
    for (size_t il = 0; il < allocation.rho.size(); ++il) {
        // T - f_l - 25; the budget is T - f_l even where protected rows make the layer longer.
        int64_t slot = std::min<int64_t>(allocation.layers[il].n_kept[0], n_tokens) - kSlotFromEnd;
        if (slot < 1) {
            slot = static_cast<int64_t>(layers[il].kept[0].size()) / 2;
        }
        rules.push_back({.rho = allocation.rho[il], .drop_slot = static_cast<int32_t>(slot)});
    }
    return rules;
}

DecodeTrace simulate_decode(const Plan & plan, int32_t n_tokens, int32_t n_steps) {
    if (n_steps < 0 || n_tokens < 1) {
        throw Error(ErrorCode::invalid_argument, "a decode simulation of " + std::to_string(n_steps) + " steps after " +
                                                     std::to_string(n_tokens) +
                                                     " tokens; expected no negative number of steps and a prompt");
    }
    DecodeTrace trace;
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        std::vector<int32_t> rows = plan.layers[il].of_head(0);  // logical order
        std::vector<DecodeRemoval> removed;
        for (int32_t step = 1; step <= n_steps; ++step) {
            rows.push_back(n_tokens + step - 1);
            if (plan.decode.empty()) {
                continue;
            }
            const DecodeRule & rule = plan.decode[il];
            if (rule.n_over(static_cast<int64_t>(rows.size()), int64_t{n_tokens} + step) > 0) {
                const auto victim = rows.begin() + rule.drop_slot;
                removed.push_back({.step = step, .position = *victim});
                rows.erase(victim);
            }
        }
        trace.removed.push_back(std::move(removed));
        trace.final_len.push_back(static_cast<int32_t>(rows.size()));
    }
    return trace;
}

}  // namespace kvsieve
