// SPDX-License-Identifier: MIT
#include "policy/compose.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kvsieve/error.h"
#include "policy/decode.h"
#include "policy/merge.h"
#include "policy/parallel.h"
#include "policy/prompt.h"

namespace kvsieve {
namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

/// What the traits imply for a prompt.
void check_shape(const std::string & method, const Traits & traits, const PromptShape & p) {
    if (p.n_layer < 1 || p.n_tokens < 1) {
        refuse("a prompt has " + std::to_string(p.n_layer) + " layers and " + std::to_string(p.n_tokens) +
               " tokens; expected at least one of each");
    }
    if (!p.visual_mask.empty() && p.visual_mask.size() != static_cast<size_t>(p.n_tokens)) {
        refuse("the visual mask has " + std::to_string(p.visual_mask.size()) + " entries; expected " +
               std::to_string(p.n_tokens) + ", one per prompt token");
    }
    if (p.n_head < 0 || p.n_head_kv < 0 || (p.n_head_kv > 0 && p.n_head % p.n_head_kv != 0)) {
        refuse("the prompt has " + std::to_string(p.n_head) + " query heads and " + std::to_string(p.n_head_kv) +
               " KV heads; expected a whole number of query heads per KV head");
    }
    const bool sees_heads = traits.colsum || traits.rows != RowsWanted::none || traits.query_stats || traits.probes;
    const bool sees_cache = traits.keys || traits.values || traits.per_head || traits.colsum;
    if ((sees_heads && p.n_head < 1) || (sees_cache && p.n_head_kv < 1)) {
        refuse("method " + method + " needs the number of " + (sees_heads && p.n_head < 1 ? "query" : "KV") +
               " heads, which is not known for this prompt");
    }
    if (traits.rows == RowsWanted::last_window && p.n_tokens < traits.window) {
        refuse("method " + method + " observes the last " + std::to_string(traits.window) +
               " prompt tokens; the prompt has " + std::to_string(p.n_tokens));
    }
    if (traits.visual && visual_positions(p).empty()) {
        refuse("method " + method + " needs visual tokens; the prompt has none");
    }
    if (traits.rows == RowsWanted::text_after_visual && positions_after_visual(p).empty()) {
        refuse("method " + method + " needs text behind the last visual token; the prompt ends with a visual token");
    }
}

class ComposedMethod final : public Method {
  public:
    explicit ComposedMethod(MethodParts parts) : parts_(std::move(parts)) {
        parts_.scorer->observe(traits_);
        parts_.allocator->observe(traits_);
        traits_.layerwise = parts_.allocator->layerwise() && parts_.prune_layer == 0;
        traits_.evicts_while_decoding = parts_.allocator->evicts_while_decoding();
        traits_.visual = parts_.needs_visual;
        traits_.modality = traits_.modality || parts_.scope == Scope::visual || parts_.needs_visual;
        traits_.per_head = parts_.granularity == Granularity::head;
        traits_.merges = parts_.merges;
        traits_.prune_layer = parts_.prune_layer;
    }

    const Traits & traits() const override { return traits_; }

    void check(const PromptShape & prompt) const override {
        check_shape(parts_.name, traits_, prompt);
        parts_.scorer->check(prompt);
        parts_.allocator->check(prompt);
    }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        check(prompt);
        check_layer(prompt, il);
        if (parts_.prune_layer > 0 && il != parts_.prune_layer - 1) {
            return {};  // only one layer is observed
        }
        LayerScore out = parts_.scorer->score(prompt, il, obs);
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        for (size_t i = 0; i < out.score.size(); ++i) {
            // NaN has no place in any order; a backend that computes one must not choose what is kept.
            if (!std::isfinite(out.score[i])) {
                throw Error(ErrorCode::runtime, "method " + parts_.name + " got a score that is not finite in layer " +
                                                    std::to_string(il) + " at position " +
                                                    std::to_string(i % n_tokens) +
                                                    "; what was observed holds NaN, infinity or too large numbers");
            }
        }
        parts_.allocator->add_stats(prompt, field_of(prompt), il, obs, out);
        if (parts_.granularity == Granularity::layer && out.score.size() > n_tokens) {
            const size_t n_set = n_score_sets(prompt, out);
            for (size_t k = 0; k < n_tokens; ++k) {
                double sum = 0;
                for (size_t g = 0; g < n_set; ++g) {
                    sum += out.score[g * n_tokens + k];
                }
                out.score[k] = sum / static_cast<double>(n_set);
            }
            out.score.resize(n_tokens);
            out.score.shrink_to_fit();
        }
        return out;
    }

    LayerPlan plan_layer(const PromptShape & prompt, int32_t il, const LayerScore & score) const override {
        check(prompt);
        check_layer(prompt, il);
        if (parts_.keep_all_rows || il < parts_.prune_layer) {
            return everything(prompt);
        }
        const Field field = field_of(prompt);
        CutScratch scratch;
        return select(prompt, field, score, parts_.allocator->allocate_layer(prompt, field, il, score), scratch);
    }

    Plan plan(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        check(prompt);
        check_scores(prompt, scores);
        const Field field = field_of(prompt);
        Allocation allocation = parts_.allocator->allocate(prompt, field, scores);
        Plan plan;
        plan.per_head = traits_.per_head;
        plan.layers.resize(scores.size());
        parallel_for_with<CutScratch>(scores.size(), parts_.n_threads, [&](size_t il, CutScratch & scratch) {
            const bool whole = parts_.keep_all_rows || static_cast<int32_t>(il) < parts_.prune_layer;
            plan.layers[il] = whole ? everything(prompt)
                                    : select(prompt, field, scores[scored_layer(il)], allocation.layers[il], scratch);
        });
        plan.keeps_everything = true;
        for (const LayerPlan & layer : plan.layers) {
            plan.keeps_everything &= layer.types.empty();
            for (const auto & kept : layer.kept) {
                plan.keeps_everything &= kept.size() == static_cast<size_t>(prompt.n_tokens);
            }
        }
        plan.extra = std::move(allocation.extra);
        if (traits_.evicts_while_decoding) {
            if (parts_.keep_all_rows) {
                allocation.rho.clear();
            }
            plan.decode = decode_rules(prompt.n_tokens, allocation, plan.layers);
            std::vector<int32_t> slots;
            for (const DecodeRule & rule : plan.decode) {
                slots.push_back(rule.drop_slot);
            }
            plan.extra["drop_slot"] = std::move(slots);
        }
        if (parts_.merges) {
            state_merges(plan);
        }
        gather_lists<int32_t>(scores, plan);
        gather_lists<double>(scores, plan);
        return plan;
    }

    int64_t count_rows(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        check(prompt);
        check_scores(prompt, scores);
        const int64_t n_shared = traits_.per_head ? 1 : std::max(prompt.n_head_kv, 1);  // heads per list
        const auto n_list = static_cast<size_t>(traits_.per_head ? prompt.n_head_kv : 1);
        if (parts_.keep_all_rows) {
            return int64_t{prompt.n_layer} * std::max(prompt.n_head_kv, 1) * prompt.n_tokens;
        }
        const Field field = field_of(prompt);
        const Allocation allocation = parts_.allocator->allocate(prompt, field, scores);
        int64_t total = 0;
        for (const LayerBudget & budget : allocation.layers) {
            total += n_shared * cost_selected(prompt, field, n_list, budget);
        }
        return (total + row_cost(KvType::f16) - 1) / row_cost(KvType::f16);
    }

  private:
    Field field_of(const PromptShape & prompt) const {
        Field field = make_field(prompt, parts_.scope, parts_.scorer->protects());
        field.n_threads = parts_.n_threads;
        return field;
    }

    /// The layer whose scores choose the rows of layer il.
    size_t scored_layer(size_t il) const {
        return parts_.prune_layer > 0 ? static_cast<size_t>(parts_.prune_layer - 1) : il;
    }

    LayerPlan everything(const PromptShape & prompt) const {
        std::vector<int32_t> all(static_cast<size_t>(prompt.n_tokens));
        for (size_t k = 0; k < all.size(); ++k) {
            all[k] = static_cast<int32_t>(k);
        }
        return {.kept = {static_cast<size_t>(traits_.per_head ? prompt.n_head_kv : 1), all}};
    }

    LayerPlan select(const PromptShape & prompt, const Field & field, const LayerScore & score,
                     const LayerBudget & budget, CutScratch & scratch) const {
        LayerPlan plan = select_layer(prompt, field, score, budget, scratch);
        if (traits_.per_head && plan.kept.size() != static_cast<size_t>(prompt.n_head_kv)) {
            plan.kept.resize(static_cast<size_t>(prompt.n_head_kv), plan.kept[0]);
        }
        if (parts_.merges) {
            plan.merged = merges_into_nearest(plan.kept[0], prompt.n_tokens);
        }
        return plan;
    }

    void check_scores(const PromptShape & prompt, std::span<const LayerScore> scores) const {
        if (scores.size() != static_cast<size_t>(prompt.n_layer)) {
            refuse("a plan of " + std::to_string(prompt.n_layer) + " layers needs as many scores; got " +
                   std::to_string(scores.size()));
        }
    }

    static void check_layer(const PromptShape & prompt, int32_t il) {
        if (il < 0 || il >= prompt.n_layer) {
            refuse("there is no layer " + std::to_string(il) + " in a prompt of " + std::to_string(prompt.n_layer) +
                   " layers");
        }
    }

    /// Merges as lists, named as in the golden cases.
    void state_merges(Plan & plan) const {
        std::vector<std::vector<int32_t>> thrown(plan.layers.size()), anchor(plan.layers.size());
        parallel_for(plan.layers.size(), parts_.n_threads, [&](size_t il) {
            const std::vector<Merge> & merged = plan.layers[il].merged;
            thrown[il].resize(merged.size());
            anchor[il].resize(merged.size());
            for (size_t i = 0; i < merged.size(); ++i) {
                thrown[il][i] = merged[i].from;
                anchor[il][i] = merged[i].into;
            }
        });
        plan.extra["thrown"] = std::move(thrown);
        plan.extra["anchor"] = std::move(anchor);
    }

    /// Lists in the layers' stats (AirCache's elite queries, MixKV's redundancy) become one extra with a list per
    /// layer.
    template <typename T>
    static void gather_lists(std::span<const LayerScore> scores, Plan & plan) {
        using Lists = std::vector<std::vector<T>>;
        for (const LayerScore & layer : scores) {
            for (const auto & [name, value] : layer.stats) {
                if (const auto * list = std::get_if<std::vector<T>>(&value)) {
                    std::get<Lists>(plan.extra.try_emplace(name, Lists()).first->second).push_back(*list);
                }
            }
        }
    }

    MethodParts parts_;
    Traits traits_;
};

}  // namespace

int64_t plan_cost(const PromptShape & prompt, const Plan & plan) {
    int64_t total = 0;
    for (const LayerPlan & layer : plan.layers) {
        for (int32_t g = 0; g < std::max(prompt.n_head_kv, 1); ++g) {
            const KvType type = layer.types.empty() ? KvType::f16 : layer.type_of_head(g);
            total += row_cost(type) * static_cast<int64_t>(layer.of_head(g).size());
        }
    }
    return (total + row_cost(KvType::f16) - 1) / row_cost(KvType::f16);
}

int64_t Method::count_rows(const PromptShape & prompt, std::span<const LayerScore> scores) const {
    return plan_cost(prompt, plan(prompt, scores));
}

std::unique_ptr<Method> compose(MethodParts parts) {
    return std::make_unique<ComposedMethod>(std::move(parts));
}

}  // namespace kvsieve
