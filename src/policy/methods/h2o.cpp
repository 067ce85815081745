// SPDX-License-Identifier: MIT
// H2O (arXiv 2306.14048) as KVPress's observed attention: the mean attention that a token got from the queries that
// see it.
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

class ObservedAttentionScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { traits.colsum = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        const auto n_head = static_cast<size_t>(prompt.n_head);
        const auto colsum = observed(obs.colsum, n_head * n_tokens, "colsum", il);
        std::vector<double> heads(n_head * n_tokens);
        for (size_t i = 0; i < heads.size(); ++i) {
            heads[i] = static_cast<double>(colsum[i]) / static_cast<double>(n_tokens - i % n_tokens);  // T - k queries
        }
        return {.score = group_mean(prompt, heads)};
    }
};

}  // namespace

MethodFile h2o_file() {
    return {.method = MethodRow{.name = "h2o",
                                .paper = "arXiv 2306.14048",
                                .summary = "Keeps the rows that the whole prompt attended to most, per query that sees "
                                           "them.",
                                .scorer = "h2o",
                                .allocator = "uniform"},
            .scorer = ScorerPart{.name = "h2o",
                                 .summary = "Mean attention over the queries that see a token.",
                                 .per_head = true,
                                 .mass = true,
                                 .make = [](const BoundParams &) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<ObservedAttentionScorer>();
                                 }}};
}

}  // namespace kvsieve
