// SPDX-License-Identifier: MIT
// Elastic Cache (arXiv 2407.18121): the least important rows of every layer merge into their nearest kept neighbours.
#include "policy/order.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

/// Importance, or what the published code takes for its ranks: the score of middle position i + 1 is the index of the
/// i-th lowest middle position.
class RankFaultScorer final : public Scorer {
  public:
    RankFaultScorer() : importance_(importance_scorer()) {}

    void observe(Traits & traits) const override { importance_->observe(traits); }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        LayerScore out = importance_->score(prompt, il, obs);
        if (out.score.size() > 2) {
            const std::vector<int32_t> order = stable_order(std::span(out.score).subspan(1, out.score.size() - 2));
            std::copy(order.begin(), order.end(), out.score.begin() + 1);
        }
        return out;
    }

  private:
    std::unique_ptr<Scorer> importance_;
};

}  // namespace

MethodFile elastic_cache_file() {
    return {
        .method = MethodRow{.name = "elastic_cache",
                            .paper = "arXiv 2407.18121",
                            .summary = "Drops the least attended rows of every layer into the mean of their nearest "
                                       "kept neighbours.",
                            .scorer = "elastic_cache",
                            .allocator = "elastic_cache",
                            .merges = true},
        .scorer = ScorerPart{.name = "elastic_cache",
                             .summary = "Importance, or the ranks that the published code mistakes for it.",
                             .listed = false,
                             .params = {{.name = "rank_fault",
                                         .help = "1: argsort indices are taken for ranks, as in the published code",
                                         .def = 0.0,
                                         .min = 0,
                                         .max = 1,
                                         .integer = true}},
                             .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                 if (p.number("rank_fault") == 0) {
                                     return importance_scorer();
                                 }
                                 return std::make_unique<RankFaultScorer>();
                             }},
        .allocator = AllocatorPart{
            .name = "elastic_cache",
            .summary = "trunc(T - T keep) rows less in every layer; evicts while decoding.",
            .layer_only = true,
            .ends_stay = true,
            .listed = false,
            .make = [](const BoundParams & p) { return forget_allocator(p.keep(), ForgetFormula::rest); }}};
}

}  // namespace kvsieve
