// SPDX-License-Identifier: MIT
// SnapKV (arXiv 2404.14469) as KVPress has it: the rows that the last queries attend to, pooled over neighbours.
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

class SnapScorer final : public Scorer {
  public:
    SnapScorer(int32_t window, int32_t kernel) : window_(window), kernel_(kernel) {}

    void observe(Traits & traits) const override { observe_window(traits, window_); }
    void check(const PromptShape & prompt) const override { check_window(prompt, window_); }
    Protected protects() const override { return {.first = 0, .last = window_}; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const std::vector<double> others = pooled_window_attention(prompt, il, obs, window_, kernel_);
        return {.score = with_protected(prompt, others, window_, /*first=*/false)};
    }

  private:
    int32_t window_, kernel_;
};

}  // namespace

MethodFile snapkv_file() {
    return {.method = MethodRow{.name = "snapkv",
                                .paper = "arXiv 2404.14469",
                                .summary = "Keeps the last window and the rows that its queries attend to.",
                                .scorer = "snapkv",
                                .allocator = "uniform"},
            .scorer = ScorerPart{.name = "snapkv",
                                 .summary = "Mean attention of the last window's queries, pooled; the window stays.",
                                 .per_head = true,
                                 .mass = true,
                                 .params = {window_param(64), kernel_param(5)},
                                 .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<SnapScorer>(p.integer("window"), p.integer("kernel"));
                                 }}};
}

}  // namespace kvsieve
