// SPDX-License-Identifier: MIT
// Scores of the baselines, which look at nothing.
#include "policy/scorer.h"

namespace kvsieve {
namespace {

/// One step of SplitMix64 (Steele, Lea, Flood 2014), the finaliser only: a bijection that mixes all bits.
uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31U);
}

class RandomScorer final : public Scorer {
  public:
    explicit RandomScorer(uint64_t seed) : seed_(seed) {}

    void observe(Traits & /*traits*/) const override {}

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & /*obs*/) const override {
        // A hash of (seed, layer, position) instead of a stream: the order of the calls cannot matter.
        const uint64_t layer_seed = mix(mix(seed_) ^ static_cast<uint64_t>(il));
        LayerScore out;
        out.score.resize(static_cast<size_t>(prompt.n_tokens));
        for (size_t k = 0; k < out.score.size(); ++k) {
            out.score[k] = static_cast<double>(mix(layer_seed ^ k) >> 11U) * 0x1p-53;
        }
        return out;
    }

  private:
    uint64_t seed_;
};

class ConstantScorer final : public Scorer {
  public:
    void observe(Traits & /*traits*/) const override {}

    LayerScore score(const PromptShape & prompt, int32_t /*il*/, const LayerObservation & /*obs*/) const override {
        return {.score = std::vector<double>(static_cast<size_t>(prompt.n_tokens), 0.0), .stats = {}};
    }
};

}  // namespace

std::unique_ptr<Scorer> random_scorer(uint64_t seed) {
    return std::make_unique<RandomScorer>(seed);
}
std::unique_ptr<Scorer> constant_scorer() {
    return std::make_unique<ConstantScorer>();
}

}  // namespace kvsieve
