// SPDX-License-Identifier: MIT
#include "policy/select.h"

#include <algorithm>
#include <string>

#include "kvsieve/error.h"
#include "policy/order.h"

namespace kvsieve {
namespace {

/// `competes` without the last `n_recent` counted positions.
std::vector<uint8_t> without_recent(const Field & field, int64_t n_recent) {
    std::vector<uint8_t> out = field.competes;
    for (size_t k = out.size(); k-- > 0 && n_recent > 0;) {
        if (field.counted[k] != 0) {
            out[k] = 0;
            --n_recent;
        }
    }
    return out;
}

}  // namespace

Field make_field(const PromptShape & prompt, Scope scope, const Protected & by_scorer) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    Field field{.scope = scope};
    field.counted.assign(n_tokens, scope == Scope::visual && prompt.visual_mask.empty() ? 0 : 1);
    if (scope == Scope::visual && !prompt.visual_mask.empty()) {
        field.counted = prompt.visual_mask;
    }
    field.competes = field.counted;
    if (scope == Scope::middle && n_tokens > 0) {
        field.competes.front() = 0;
        field.competes.back() = 0;
    }
    field.weighs = field.counted;
    for (size_t k = 0; k < n_tokens; ++k) {
        const bool protects =
            k < static_cast<size_t>(by_scorer.first) || n_tokens - k <= static_cast<size_t>(by_scorer.last);
        if (protects) {
            field.weighs[k] = 0;
        }
        if (field.counted[k] != 0) {
            ++field.n_rows;
            field.n_protected += protects || field.competes[k] == 0 ? 1 : 0;
        }
    }
    return field;
}

std::vector<int32_t> keep_best(std::span<const double> score, std::span<const uint8_t> competes, int64_t n_drop) {
    const size_t n = competes.size();
    std::vector<uint64_t> keys(n + 1);  // one slot more: a key that does not compete is written and then overwritten
    size_t n_competing = 0;
    for (size_t k = 0; k < n; ++k) {
        keys[n_competing] = order_key(score[k]);
        n_competing += competes[k] != 0 ? 1 : 0;
    }
    keys.resize(n_competing);
    const int64_t n_dropped = std::clamp<int64_t>(n_drop, 0, static_cast<int64_t>(keys.size()));
    Cut cut;  // below every key of a finite number: nothing is dropped
    if (n_dropped > 0) {
        std::vector<uint64_t> scratch;
        cut = find_cut(keys, n_dropped, scratch);
    }
    // One slot more than is kept: a dropped position is written, too, and then overwritten.
    std::vector<int32_t> kept(n - static_cast<size_t>(n_dropped) + 1);
    size_t n_kept = 0, i = 0;
    int64_t n_tied = cut.n_tied;
    for (size_t k = 0; k < n; ++k) {
        bool keep = true;
        if (competes[k] != 0) {
            const uint64_t key = keys[i++];
            const bool tied = key == cut.key && n_tied > 0;
            n_tied -= tied ? 1 : 0;
            keep = key >= cut.key && !tied;
        }
        kept[n_kept] = static_cast<int32_t>(k);
        n_kept += keep ? 1 : 0;
    }
    kept.resize(n_kept);
    return kept;
}

LayerPlan select_layer(const PromptShape & prompt, const Field & field, const LayerScore & score,
                       const LayerBudget & budget) {
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
    std::vector<uint8_t> competes;
    if (budget.n_recent > 0) {
        competes = without_recent(field, budget.n_recent);
    }
    LayerPlan plan;
    for (size_t i = 0; i < n_list; ++i) {
        const size_t set = n_set == 1 ? 0 : i;
        const int64_t n_kept = budget.n_kept[budget.n_kept.size() == 1 ? 0 : i];
        plan.kept.push_back(keep_best(std::span(score.score).subspan(set * n_tokens, n_tokens),
                                      budget.n_recent > 0 ? competes : field.competes, field.n_rows - n_kept));
    }
    return plan;
}

int64_t count_selected(const PromptShape & prompt, const Field & field, size_t n_set, const LayerBudget & budget) {
    const std::vector<uint8_t> competes = budget.n_recent > 0 ? without_recent(field, budget.n_recent) : field.competes;
    const auto n_competing = static_cast<int64_t>(std::count(competes.begin(), competes.end(), 1));
    const size_t n_list = std::max(n_set, budget.n_kept.size());
    int64_t total = 0;
    for (size_t i = 0; i < n_list; ++i) {
        const int64_t n_kept = budget.n_kept[budget.n_kept.size() == 1 ? 0 : i];
        total += prompt.n_tokens - std::clamp<int64_t>(field.n_rows - n_kept, 0, n_competing);
    }
    return total;
}

}  // namespace kvsieve
