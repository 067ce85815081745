// SPDX-License-Identifier: MIT
// Sieve, kvsieve's own method: what probe queries, recorded from earlier answers and moved behind this prompt, attend
// to, times what its values do behind the output projection; one search over all layers and KV heads.
#include <algorithm>
#include <cmath>

#include "policy/budget.h"
#include "policy/order.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

class SieveScorer final : public Scorer {
  public:
    SieveScorer(double spread, bool output) : spread_(spread), output_(output) {}

    void observe(Traits & traits) const override { traits.probes = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
        const auto n_group = static_cast<size_t>(prompt.n_head_kv), n_shared = n_head / n_group;
        const auto mean = observed(obs.probe_mean, n_head * n_tokens, "probe_mean", il);
        const auto square = observed(obs.probe_square, n_head * n_tokens, "probe_square", il);
        const auto norm = observed(obs.output_norm, n_head * n_tokens, "output_norm", il);
        LayerScore out{.score = std::vector<double>(n_group * n_tokens, 0.0)};
        for (size_t h = 0; h < n_head; ++h) {
            double * const to = out.score.data() + h / n_shared * n_tokens;
            for (size_t k = 0; k < n_tokens; ++k) {
                const size_t i = h * n_tokens + k;
                const auto m = static_cast<double>(mean[i]);
                const double variance = std::max(0.0, static_cast<double>(square[i]) - m * m);
                const double size = output_ ? static_cast<double>(norm[i]) : 1.0;
                to[k] += (m * m + spread_ * variance) * size * size;
            }
        }
        for (double & x : out.score) {
            x = std::sqrt(x / static_cast<double>(n_shared));
        }
        return out;
    }

  private:
    double spread_;
    bool output_;
};

/// One pool of the rows of all layers and KV heads.
class SieveAllocator final : public Allocator {
  public:
    SieveAllocator(double keep, double safe) : keep_(keep), safe_(safe) {}

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_);
        const int64_t n_safe = trunc_guarded(static_cast<double>(n_kept) * safe_);
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        const std::vector<Run> runs = runs_of(field.counted);
        std::vector<Values> pool;
        for (const LayerScore & layer : scores) {
            for (size_t g = 0; g < n_score_sets(prompt, layer); ++g) {
                pool.push_back(
                    {.all = std::span(layer.score).subspan(g * n_tokens, n_tokens), .runs = runs, .n = n_places(runs)});
            }
        }
        CutScratch scratch;
        const auto n_list = static_cast<int64_t>(pool.size());
        const std::vector<PoolCut> cuts = cut_pool(pool, n_safe, n_list * (n_kept - n_safe), scratch);
        Allocation out;
        for (size_t at = 0; const LayerScore & layer : scores) {
            LayerBudget budget;
            for (size_t g = 0; g < n_score_sets(prompt, layer); ++g, ++at) {
                budget.n_kept.push_back(field.n_rows - cuts[at].n_drop);
                budget.cuts.push_back(cuts[at].cut);
            }
            out.layers.push_back(std::move(budget));
        }
        return out;
    }

  private:
    double keep_, safe_;
};

}  // namespace

MethodFile sieve_file() {
    return {.method = MethodRow{.name = "sieve",
                                .summary = "Keeps the rows that the queries of earlier answers would attend to behind "
                                           "this prompt, weighed by their output, in one search over layers and heads.",
                                .scorer = "sieve",
                                .allocator = "sieve"},
            .scorer = ScorerPart{.name = "sieve",
                                 .summary = "Attention of probe queries times the norm of the value behind the output "
                                            "projection.",
                                 .per_head = true,
                                 .mass = true,
                                 .params = {{.name = "spread",
                                             .help = "weight of the variance over the probes beside the squared mean: "
                                                     "0 is the mean, 1 the root mean square",
                                             .def = 1.0,
                                             .min = 0,
                                             .max = 100},
                                            {.name = "output",
                                             .help = "1: attention is multiplied by the norm of the value behind the "
                                                     "output projection",
                                             .def = 1.0,
                                             .min = 0,
                                             .max = 1,
                                             .integer = true}},
                                 .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<SieveScorer>(p.number("spread"), p.number("output") != 0);
                                 }},
            .allocator =
                AllocatorPart{.name = "sieve",
                              .summary = "The best scores of all layers and KV heads, a safe share to each of them.",
                              .needs_mass = true,
                              .params = {{.name = "safe",
                                          .help = "share of its n(T) rows that every layer and KV head keeps",
                                          .def = 0.5,
                                          .min = 0,
                                          .max = 1}},
                              .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                                  return std::make_unique<SieveAllocator>(p.keep(), p.number("safe"));
                              }}};
}

}  // namespace kvsieve
