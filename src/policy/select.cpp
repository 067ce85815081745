// SPDX-License-Identifier: MIT
#include "policy/select.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "kvsieve/error.h"
#include "policy/scan.h"

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

std::vector<int32_t> keep_best(const Values & score, int64_t n_drop, CutScratch & scratch, const Cut * known) {
    const size_t n = score.all.size();
    const int64_t n_dropped = std::clamp<int64_t>(n_drop, 0, static_cast<int64_t>(score.n));
    const size_t n_kept = n - static_cast<size_t>(n_dropped);
    if (n_dropped == 0) {
        std::vector<int32_t> all(n);
        std::iota(all.begin(), all.end(), 0);
        return all;
    }
    std::vector<int32_t> & kept = scratch.places;
    if (kept.size() < n + kScanSlack) {
        kept.resize(n + kScanSlack);
    }
    // The positions that do not compete and, of each run, those that `take` writes; how many.
    const auto choose = [&](const auto & take) {
        size_t at = 0, k = 0;
        const auto take_until = [&](size_t end) {
            for (; k < end; ++k) {
                kept[at++] = static_cast<int32_t>(k);
            }
        };
        for (const Run & run : score.runs) {
            take_until(run.begin);
            at += take(run, kept.data() + at);
            k = run.end;
        }
        take_until(n);
        return at;
    };
    const auto apply = [&](const Cut & cut) {
        const auto above = [&](const Run & run, int32_t * out) {
            return scan_above(score.all.data() + run.begin, run.end - run.begin, cut.value,
                              static_cast<int32_t>(run.begin), out);
        };
        // Nearly always no position with the value of the cut stays.
        if (choose(above) == n_kept) {
            return true;
        }
        int64_t n_tied = cut.n_tied;
        const auto above_or_tied = [&](const Run & run, int32_t * out) {
            size_t at = 0;
            for (size_t k = run.begin; k < run.end; ++k) {
                const double x = score.all[k];
                out[at] = static_cast<int32_t>(k);  // a dropped position is overwritten by the next one
                at += x > cut.value || (x == cut.value && n_tied-- <= 0) ? 1 : 0;
            }
            return at;
        };
        return choose(above_or_tied) == n_kept;
    };
    if (known == nullptr || !apply(*known)) {
        apply(find_cut(score, n_dropped, scratch));
    }
    return {kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(n_kept)};
}

LayerPlan select_layer(const PromptShape & prompt, const Field & field, const LayerScore & score,
                       const LayerBudget & budget, CutScratch & scratch) {
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
    std::vector<uint8_t> without;
    if (budget.n_recent > 0) {
        without = without_recent(field, budget.n_recent);
    }
    const std::vector<Run> runs = runs_of(budget.n_recent > 0 ? without : field.competes);
    const size_t n_competing = n_places(runs);
    LayerPlan plan{.kept = {}, .types = budget.types};
    plan.kept.reserve(n_list);
    for (size_t i = 0; i < n_list; ++i) {
        const size_t set = n_set == 1 ? 0 : i;
        const int64_t n_kept = budget.n_kept[budget.n_kept.size() == 1 ? 0 : i];
        plan.kept.push_back(
            keep_best({.all = std::span(score.score).subspan(set * n_tokens, n_tokens), .runs = runs, .n = n_competing},
                      field.n_rows - n_kept, scratch, budget.cuts.size() == n_list ? &budget.cuts[i] : nullptr));
    }
    return plan;
}

int64_t cost_selected(const PromptShape & prompt, const Field & field, size_t n_set, const LayerBudget & budget) {
    const std::vector<uint8_t> competes = budget.n_recent > 0 ? without_recent(field, budget.n_recent) : field.competes;
    const auto n_competing = static_cast<int64_t>(std::count(competes.begin(), competes.end(), 1));
    const size_t n_list = std::max(n_set, budget.n_kept.size());
    int64_t total = 0;
    for (size_t i = 0; i < n_list; ++i) {
        const int64_t n_kept = budget.n_kept[budget.n_kept.size() == 1 ? 0 : i];
        const KvType type = budget.types.empty() ? KvType::f16 : budget.types[budget.types.size() == 1 ? 0 : i];
        total += row_cost(type) * (prompt.n_tokens - std::clamp<int64_t>(field.n_rows - n_kept, 0, n_competing));
    }
    return total;
}

}  // namespace kvsieve
