// SPDX-License-Identifier: MIT
// KeyDiff (arXiv 2504.15364) as KVPress has it: rows whose keys differ most from the mean direction stay.
#include <algorithm>
#include <cmath>

#include "policy/parts.h"

namespace kvsieve {
namespace {

class KeyDiffScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { traits.keys = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_group = static_cast<size_t>(prompt.n_head_kv), n_tokens = static_cast<size_t>(prompt.n_tokens);
        const auto d = static_cast<size_t>(prompt.head_dim);
        const auto keys = observed(obs.keys, n_group * n_tokens * d, "keys", il);
        LayerScore out;
        out.score.reserve(n_group * n_tokens);
        for (size_t g = 0; g < n_group; ++g) {
            score_head(keys.subspan(g * n_tokens * d, n_tokens * d), n_tokens, d, out.score);
        }
        return out;
    }

  private:
    static void score_head(std::span<const float> keys, size_t n_tokens, size_t d, std::vector<double> & out) {
        std::vector<double> norms(n_tokens), anchor(d, 0.0);
        for (size_t k = 0; k < n_tokens; ++k) {
            double sum = 0;
            for (size_t i = 0; i < d; ++i) {
                sum += static_cast<double>(keys[k * d + i]) * static_cast<double>(keys[k * d + i]);
            }
            norms[k] = std::sqrt(sum);
            for (size_t i = 0; i < d; ++i) {
                anchor[i] += static_cast<double>(keys[k * d + i]) / std::max(norms[k], 1e-12);
            }
        }
        double squares = 0;
        for (double & x : anchor) {
            x /= static_cast<double>(n_tokens);
            squares += x * x;
        }
        const double anchor_norm = std::max(std::sqrt(squares), 1e-8);
        for (size_t k = 0; k < n_tokens; ++k) {
            double product = 0;
            for (size_t i = 0; i < d; ++i) {
                product += static_cast<double>(keys[k * d + i]) * anchor[i];
            }
            out.push_back(-product / (std::max(norms[k], 1e-8) * anchor_norm));
        }
    }
};

}  // namespace

MethodFile keydiff_file() {
    return {.method = MethodRow{.name = "keydiff",
                                .paper = "arXiv 2504.15364",
                                .summary = "Keeps the rows whose keys point away from the mean direction of all keys.",
                                .scorer = "keydiff",
                                .allocator = "uniform"},
            .scorer = ScorerPart{.name = "keydiff",
                                 .summary = "Minus the cosine of the key and the mean direction of the head's keys.",
                                 .per_head = true,
                                 .make = [](const BoundParams &) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<KeyDiffScorer>();
                                 }}};
}

}  // namespace kvsieve
