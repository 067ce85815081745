// SPDX-License-Identifier: MIT
#include "policy/scorer.h"

namespace kvsieve {
namespace {

class ImportanceScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { traits.importance = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto array = observed(obs.importance, static_cast<size_t>(prompt.n_tokens), "importance", il);
        return {.score = {array.begin(), array.end()}, .stats = {}};
    }
};

}  // namespace

std::unique_ptr<Scorer> importance_scorer() {
    return std::make_unique<ImportanceScorer>();
}

}  // namespace kvsieve
