// SPDX-License-Identifier: MIT
// StreamingLLM (arXiv 2309.17453) as KVPress has it: the first tokens (attention sinks) and the last ones.
#include "policy/parts.h"

namespace kvsieve {
namespace {

class SinksAndRecentScorer final : public Scorer {
  public:
    explicit SinksAndRecentScorer(int32_t n_sink) : n_sink_(n_sink) {}

    void observe(Traits & /*traits*/) const override {}
    Protected protects() const override { return {.first = n_sink_, .last = 0}; }

    LayerScore score(const PromptShape & prompt, int32_t /*il*/, const LayerObservation & /*obs*/) const override {
        LayerScore out;
        for (int32_t k = 0; k < prompt.n_tokens; ++k) {
            // Sinks lie above all others, the first one highest.
            out.score.push_back(k < n_sink_ ? static_cast<double>(prompt.n_tokens) + n_sink_ - k : k);
        }
        return out;
    }

  private:
    int32_t n_sink_;
};

}  // namespace

MethodFile streaming_llm_file() {
    return {
        .method = MethodRow{.name = "streaming_llm",
                            .paper = "arXiv 2309.17453",
                            .summary = "Keeps the first few rows, which serve as attention sinks, and the last ones.",
                            .scorer = "streaming_llm",
                            .allocator = "uniform"},
        .scorer = ScorerPart{.name = "streaming_llm",
                             .summary = "The sinks first, then the later a token the higher its score.",
                             .params = {{.name = "n_sink",
                                         .help = "rows at the start that stay",
                                         .def = 4.0,
                                         .min = 0,
                                         .max = 65536,
                                         .integer = true}},
                             .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                 return std::make_unique<SinksAndRecentScorer>(p.integer("n_sink"));
                             }}};
}

}  // namespace kvsieve
