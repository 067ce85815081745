// SPDX-License-Identifier: MIT
// TOVA (arXiv 2401.06104) as KVPress has it: what the last prompt token attends to, mean over all query heads.
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

class TovaScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { observe_window(traits, 1); }
    Protected protects() const override { return {.first = 0, .last = 1}; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        std::vector<double> row = last_row_mean(prompt, il, obs);
        row.pop_back();
        if (row.empty()) {
            return {.score = {1.0}};
        }
        return {.score = with_protected(prompt, row, 1, /*first=*/false)};
    }
};

}  // namespace

MethodFile tova_file() {
    return {.method = MethodRow{.name = "tova",
                                .paper = "arXiv 2401.06104",
                                .summary = "Keeps the rows that the last prompt token attends to.",
                                .scorer = "tova",
                                .allocator = "uniform"},
            .scorer = ScorerPart{
                .name = "tova",
                .summary = "Attention of the last token, mean over all query heads; the last token "
                           "stays.",
                .mass = true,
                .make = [](const BoundParams &) -> std::unique_ptr<Scorer> { return std::make_unique<TovaScorer>(); }}};
}

}  // namespace kvsieve
