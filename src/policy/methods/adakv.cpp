// SPDX-License-Identifier: MIT
// AdaKV (arXiv 2407.11550) as KVPress has it: SnapKV's scores; the KV heads of a layer share one budget, but each keeps
// a safeguard of its own best rows.
#include "policy/budget.h"
#include "policy/head_pool.h"
#include "policy/parallel.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

class AdaAllocator final : public Allocator {
  public:
    AdaAllocator(double keep, double safeguard) : keep_(keep), safeguard_(safeguard) {}

    bool layerwise() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & prompt, const Field & field, int32_t /*il*/,
                               const LayerScore & score) const override {
        CutScratch scratch;
        return divide(prompt, field, score, scratch);
    }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        Allocation out;
        out.layers.resize(scores.size());
        parallel_for_with<CutScratch>(scores.size(), field.n_threads, [&](size_t il, CutScratch & scratch) {
            out.layers[il] = divide(prompt, field, scores[il], scratch);
        });
        return out;
    }

  private:
    LayerBudget divide(const PromptShape & prompt, const Field & field, const LayerScore & score,
                       CutScratch & scratch) const {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_);
        const int64_t n_safe = trunc_guarded(static_cast<double>(n_kept) * safeguard_);
        const auto n_set = static_cast<int64_t>(n_score_sets(prompt, score));
        LayerBudget out;
        for (const PoolCut & cut : cut_sets(prompt, score, field.counted, n_safe, n_set * (n_kept - n_safe), scratch)) {
            out.n_kept.push_back(field.n_rows - cut.n_drop);
            out.cuts.push_back(cut.cut);
        }
        return out;
    }

    double keep_, safeguard_;
};

}  // namespace

MethodFile adakv_file() {
    return {.method = MethodRow{.name = "adakv",
                                .paper = "arXiv 2407.11550",
                                .summary = "SnapKV with one budget per layer that its KV heads compete for.",
                                .scorer = "snapkv",
                                .allocator = "adakv"},
            .allocator = AllocatorPart{.name = "adakv",
                                       .summary = "G n(T) rows per layer to the best scores of all its KV heads, a "
                                                  "safeguard to each head.",
                                       .heads_only = true,
                                       .params = {{.name = "safeguard",
                                                   .help = "share of n(T) that every KV head keeps for itself",
                                                   .def = 0.2,
                                                   .min = 0,
                                                   .max = 1}},
                                       .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                                           return std::make_unique<AdaAllocator>(p.keep(), p.number("safeguard"));
                                       }}};
}

}  // namespace kvsieve
