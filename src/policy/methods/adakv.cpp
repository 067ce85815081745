// SPDX-License-Identifier: MIT
// AdaKV (arXiv 2407.11550) as KVPress has it: SnapKV's scores; the KV heads of a layer share one budget, but each keeps
// a safeguard of its own best rows.
#include <algorithm>
#include <limits>

#include "policy/budget.h"
#include "policy/head_pool.h"
#include "policy/order.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

class AdaAllocator final : public Allocator {
  public:
    AdaAllocator(double keep, double safeguard) : keep_(keep), safeguard_(safeguard) {}

    bool layerwise() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & prompt, const Field & field, int32_t /*il*/,
                               const LayerScore & score) const override {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_);
        const int64_t n_safe = trunc_guarded(static_cast<double>(n_kept) * safeguard_);
        const size_t n_set = n_score_sets(prompt, score);
        std::vector<uint64_t> keys = pool_keys(prompt, score, field.counted);
        if (n_safe > 0) {
            for (size_t g = 0; g < n_set; ++g) {
                raise_best(
                    std::span(keys).subspan(g * static_cast<size_t>(field.n_rows), static_cast<size_t>(field.n_rows)),
                    n_safe);
            }
        }
        return {best_per_set(keys, n_set, static_cast<int64_t>(n_set) * n_kept)};
    }

  private:
    /// The `n` best of a head go above everything.
    static void raise_best(std::span<uint64_t> keys, int64_t n) {
        const int64_t n_below = static_cast<int64_t>(keys.size()) - n;
        Cut cut;
        if (n_below > 0) {
            std::vector<uint64_t> scratch;
            cut = find_cut(keys, n_below, scratch);
        }
        for (uint64_t & key : keys) {
            if (key == cut.key && cut.n_tied > 0) {
                --cut.n_tied;
            } else if (key >= cut.key) {
                key = std::numeric_limits<uint64_t>::max();
            }
        }
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
