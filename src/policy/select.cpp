// SPDX-License-Identifier: MIT
#include "policy/select.h"

#include <algorithm>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {

std::vector<uint8_t> competing(const PromptShape & prompt, Scope scope) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    if (scope == Scope::visual) {
        return prompt.visual_mask.empty() ? std::vector<uint8_t>(n_tokens, 0) : prompt.visual_mask;
    }
    std::vector<uint8_t> out(n_tokens, 1);
    if (scope == Scope::middle && n_tokens > 0) {
        out.front() = 0;
        out.back() = 0;
    }
    return out;
}

std::vector<int32_t> keep_best(std::span<const double> score, std::span<const uint8_t> competes, int64_t n_drop) {
    std::vector<int32_t> order;
    for (size_t k = 0; k < competes.size(); ++k) {
        if (competes[k] != 0) {
            order.push_back(static_cast<int32_t>(k));
        }
    }
    const auto n_dropped = std::clamp<int64_t>(n_drop, 0, static_cast<int64_t>(order.size()));
    // (score, position) is a total order: which elements lie before the cut does not depend on the algorithm.
    const auto before = [&](int32_t a, int32_t b) {
        const double sa = score[static_cast<size_t>(a)], sb = score[static_cast<size_t>(b)];
        return sa < sb || (sa == sb && a < b);
    };
    std::nth_element(order.begin(), order.begin() + n_dropped, order.end(), before);
    std::vector<uint8_t> dropped(competes.size(), 0);
    for (int64_t i = 0; i < n_dropped; ++i) {
        dropped[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1;
    }
    std::vector<int32_t> kept;
    kept.reserve(competes.size() - static_cast<size_t>(n_dropped));
    for (size_t k = 0; k < competes.size(); ++k) {
        if (dropped[k] == 0) {
            kept.push_back(static_cast<int32_t>(k));
        }
    }
    return kept;
}

LayerPlan select_layer(const PromptShape & prompt, Scope scope, const LayerScore & score, const LayerBudget & budget) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    const size_t n_set = score.score.size() / n_tokens;
    const size_t n_list = std::max(n_set, budget.n_kept.size());
    if (score.score.size() != n_set * n_tokens || n_set == 0 || (n_set != 1 && n_set != n_list) ||
        (budget.n_kept.size() != 1 && budget.n_kept.size() != n_list)) {
        throw Error(ErrorCode::invalid_argument, "a layer has " + std::to_string(score.score.size()) + " scores and " +
                                                     std::to_string(budget.n_kept.size()) + " budgets for " +
                                                     std::to_string(n_tokens) +
                                                     " tokens; expected one set for all KV heads or one per KV head");
    }
    const std::vector<uint8_t> competes = competing(prompt, scope);
    LayerPlan plan;
    for (size_t i = 0; i < n_list; ++i) {
        const size_t set = n_set == 1 ? 0 : i;
        const int64_t n_kept = budget.n_kept[budget.n_kept.size() == 1 ? 0 : i];
        plan.kept.push_back(
            keep_best(std::span(score.score).subspan(set * n_tokens, n_tokens), competes, prompt.n_tokens - n_kept));
    }
    return plan;
}

}  // namespace kvsieve
