// SPDX-License-Identifier: MIT
#include "policy/compose.h"

#include <cmath>
#include <numeric>
#include <string>

#include "kvsieve/error.h"
#include "policy/decode.h"
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
    const bool sees_heads = traits.colsum || traits.rows != RowsWanted::none;
    const bool sees_cache = traits.keys || traits.values || traits.per_head;
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
        traits_.layerwise = parts_.allocator->layerwise();
        traits_.evicts_while_decoding = parts_.allocator->evicts_while_decoding();
        traits_.visual = parts_.needs_visual;
    }

    const Traits & traits() const override { return traits_; }

    void check(const PromptShape & prompt) const override {
        check_shape(std::string(parts_.name), traits_, prompt);
        parts_.scorer->check(prompt);
        parts_.allocator->check(prompt);
    }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        check(prompt);
        check_layer(prompt, il);
        LayerScore out = parts_.scorer->score(prompt, il, obs);
        for (size_t i = 0; i < out.score.size(); ++i) {
            // NaN has no place in any order; a backend that computes one must not choose what is kept.
            if (!std::isfinite(out.score[i])) {
                throw Error(ErrorCode::runtime, "method " + std::string(parts_.name) +
                                                    " got a score that is not finite in layer " + std::to_string(il) +
                                                    " at position " +
                                                    std::to_string(i % static_cast<size_t>(prompt.n_tokens)) +
                                                    "; the observed attention holds NaN or infinity");
            }
        }
        return out;
    }

    LayerPlan plan_layer(const PromptShape & prompt, int32_t il, const LayerScore & score) const override {
        check(prompt);
        check_layer(prompt, il);
        const LayerBudget budget = parts_.allocator->allocate_layer(prompt, il, score);
        return select_layer(prompt, parts_.scope, score, parts_.keep_all_rows ? everything(prompt) : budget);
    }

    Plan plan(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        check(prompt);
        if (scores.size() != static_cast<size_t>(prompt.n_layer)) {
            refuse("a plan of " + std::to_string(prompt.n_layer) + " layers needs as many scores; got " +
                   std::to_string(scores.size()));
        }
        Allocation allocation = parts_.allocator->allocate(prompt, scores);
        if (parts_.keep_all_rows) {
            allocation.layers.assign(scores.size(), everything(prompt));
            allocation.rho.clear();
        }
        Plan plan;
        plan.keeps_everything = true;
        for (size_t il = 0; il < scores.size(); ++il) {
            plan.layers.push_back(select_layer(prompt, parts_.scope, scores[il], allocation.layers[il]));
            for (const auto & kept : plan.layers.back().kept) {
                plan.keeps_everything &= kept.size() == static_cast<size_t>(prompt.n_tokens);
            }
        }
        plan.extra = std::move(allocation.extra);
        if (traits_.evicts_while_decoding) {
            plan.decode = decode_rules(prompt.n_tokens, allocation, plan.layers);
            std::vector<int32_t> slots;
            for (const DecodeRule & rule : plan.decode) {
                slots.push_back(rule.drop_slot);
            }
            plan.extra["drop_slot"] = std::move(slots);
        }
        gather_lists(scores, plan);
        return plan;
    }

  private:
    static LayerBudget everything(const PromptShape & prompt) { return {{prompt.n_tokens}}; }

    static void check_layer(const PromptShape & prompt, int32_t il) {
        if (il < 0 || il >= prompt.n_layer) {
            refuse("there is no layer " + std::to_string(il) + " in a prompt of " + std::to_string(prompt.n_layer) +
                   " layers");
        }
    }

    /// Integer lists in the layers' stats (AirCache's elite queries) become one extra with a list per layer.
    static void gather_lists(std::span<const LayerScore> scores, Plan & plan) {
        for (const LayerScore & layer : scores) {
            for (const auto & [name, value] : layer.stats) {
                if (const auto * list = std::get_if<std::vector<int32_t>>(&value)) {
                    auto & all = plan.extra.try_emplace(name, std::vector<std::vector<int32_t>>()).first->second;
                    std::get<std::vector<std::vector<int32_t>>>(all).push_back(*list);
                }
            }
        }
    }

    MethodParts parts_;
    Traits traits_;
};

}  // namespace

std::unique_ptr<Method> compose(MethodParts parts) {
    return std::make_unique<ComposedMethod>(std::move(parts));
}

}  // namespace kvsieve
