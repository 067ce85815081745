// SPDX-License-Identifier: MIT
// FastV (arXiv 2403.06764): after the first layers the visual tokens that the last prompt token ignores leave the
// prefill.
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

class LastRowScorer final : public Scorer {
  public:
    void observe(Traits & traits) const override { observe_window(traits, 1); }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        return {.score = last_row_mean(prompt, il, obs)};
    }
};

}  // namespace

MethodFile fastv_file() {
    return {.method = MethodRow{.name = "fastv",
                                .paper = "arXiv 2403.06764",
                                .summary = "Prunes visual tokens from the prefill of the deeper layers by the last "
                                           "token's attention.",
                                .scorer = "last_row",
                                .allocator = "fastv",
                                .visual = true,
                                .prune_layer = "prune_layer"},
            .scorer = ScorerPart{.name = "last_row",
                                 .summary = "Attention of the last token, mean over all query heads; nothing is "
                                            "protected.",
                                 .mass = true,
                                 .make = [](const BoundParams &) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<LastRowScorer>();
                                 }},
            .allocator = AllocatorPart{
                .name = "fastv",
                .summary = "All rows below prune_layer, n of the visual ones from there on.",
                .listed = false,
                .params = {{.name = "prune_layer",
                            .help = "so many of the first layers see all tokens",
                            .def = 2.0,
                            .min = 1,
                            .max = 1000,
                            .integer = true}},
                .make = [](const BoundParams & p) { return uniform_allocator(p.keep(), p.integer("prune_layer")); }}};
}

}  // namespace kvsieve
