// SPDX-License-Identifier: MIT
// Key norm (arXiv 2406.11430) as KVPress has it: rows with small keys stay.
#include <cmath>

#include "policy/parts.h"

namespace kvsieve {
namespace {

class KeyNormScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { traits.keys = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n = static_cast<size_t>(prompt.n_head_kv) * static_cast<size_t>(prompt.n_tokens);
        const auto d = static_cast<size_t>(prompt.head_dim);
        const auto keys = observed(obs.keys, n * d, "keys", il);
        LayerScore out;
        out.score.reserve(n);
        for (size_t i = 0; i < n; ++i) {
            double sum = 0;
            for (const float x : keys.subspan(i * d, d)) {
                sum += static_cast<double>(x) * static_cast<double>(x);
            }
            out.score.push_back(-std::sqrt(sum));
        }
        return out;
    }
};

}  // namespace

MethodFile knorm_file() {
    return {.method = MethodRow{.name = "knorm",
                                .paper = "arXiv 2406.11430",
                                .summary = "Keeps the rows whose keys have the smallest norms.",
                                .scorer = "knorm",
                                .allocator = "uniform_skip"},
            .scorer = ScorerPart{.name = "knorm",
                                 .summary = "Minus the norm of the key.",
                                 .per_head = true,
                                 .make = [](const BoundParams &) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<KeyNormScorer>();
                                 }},
            .allocator = AllocatorPart{
                .name = "uniform_skip",
                .summary = "All rows in the first layers, n(T) in every other.",
                .params = {{.name = "skip_layers",
                            .help = "so many of the first layers keep everything",
                            .def = 0.0,
                            .min = 0,
                            .max = 1000,
                            .integer = true}},
                .make = [](const BoundParams & p) { return uniform_allocator(p.keep(), p.integer("skip_layers")); }}};
}

}  // namespace kvsieve
