// SPDX-License-Identifier: MIT
#include "policy/allocator.h"

#include <string>

#include "kvsieve/error.h"
#include "policy/parallel.h"

namespace kvsieve {

LayerBudget Allocator::allocate_layer(const PromptShape & /*prompt*/, const Field & /*field*/, int32_t il,
                                      const LayerScore & /*score*/) const {
    throw Error(ErrorCode::invalid_argument,
                "layer " + std::to_string(il) +
                    " cannot be planned alone: the method's budgets need the scores of all "
                    "layers");
}

Allocation Allocator::allocate(const PromptShape & prompt, const Field & field,
                               std::span<const LayerScore> scores) const {
    Allocation out;
    out.layers.resize(scores.size());
    parallel_for(scores.size(), field.n_threads, [&](size_t il) {
        out.layers[il] = allocate_layer(prompt, field, static_cast<int32_t>(il), scores[il]);
    });
    return out;
}

double layer_stat(const LayerScore & score, const std::string & name) {
    const auto found = score.stats.find(name);
    if (found == score.stats.end() || !std::holds_alternative<double>(found->second)) {
        throw Error(ErrorCode::invalid_argument, "the budgets need each layer's " + name + ", which the scores lack");
    }
    return std::get<double>(found->second);
}

std::vector<double> layer_stats(std::span<const LayerScore> scores, const std::string & name) {
    std::vector<double> out;
    for (const LayerScore & layer : scores) {
        out.push_back(layer_stat(layer, name));
    }
    return out;
}

size_t n_score_sets(const PromptShape & prompt, const LayerScore & score) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    const size_t n_set = score.score.size() / n_tokens;
    if (score.score.size() != n_set * n_tokens || (n_set != 1 && n_set != static_cast<size_t>(prompt.n_head_kv))) {
        throw Error(ErrorCode::invalid_argument, "a layer has " + std::to_string(score.score.size()) + " scores for " +
                                                     std::to_string(n_tokens) +
                                                     " tokens; expected one set for all KV heads or one per KV head");
    }
    return n_set;
}

std::vector<double> weighing_scores(const PromptShape & prompt, const Field & field, const LayerScore & score) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    const size_t n_set = n_score_sets(prompt, score);
    std::vector<double> out(n_tokens);
    size_t n = 0;
    for (size_t k = 0; k < n_tokens; ++k) {
        double sum = 0;
        for (size_t g = 0; g < n_set; ++g) {
            sum += score.score[g * n_tokens + k];
        }
        out[n] = sum / static_cast<double>(n_set);  // overwritten where it does not weigh
        n += field.weighs[k] != 0 ? 1 : 0;
    }
    out.resize(n);
    return out;
}

}  // namespace kvsieve
