// SPDX-License-Identifier: MIT
// Sieve, kvsieve's own method: what probe queries, recorded from earlier answers and moved behind this prompt, attend
// to, times what its values do behind the output projection; one search over all layers and KV heads.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "policy/byte_pool.h"
#include "policy/order.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

class SieveScorer final : public Scorer {
  public:
    SieveScorer(double spread, bool output, bool key_noise) : spread_(spread), output_(output), key_noise_(key_noise) {}

    void observe(Traits & traits) const override { traits.probes = true; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
        const auto n_group = static_cast<size_t>(prompt.n_head_kv), n_shared = n_head / n_group;
        const auto mean = observed(obs.probe_mean, n_head * n_tokens, "probe_mean", il);
        const auto square = observed(obs.probe_square, n_head * n_tokens, "probe_square", il);
        const auto norm = observed(obs.output_norm, n_head * n_tokens, "output_norm", il);
        LayerScore out{.score = std::vector<double>(n_group * n_tokens, 0.0)};
        std::vector<double> noise(key_noise_ ? n_group : 0, 0.0);
        for (size_t h = 0; h < n_head; ++h) {
            double * const to = out.score.data() + h / n_shared * n_tokens;
            for (size_t k = 0; k < n_tokens; ++k) {
                const size_t i = h * n_tokens + k;
                const auto m = static_cast<double>(mean[i]);
                const double variance = std::max(0.0, static_cast<double>(square[i]) - m * m);
                const double size = output_ ? static_cast<double>(norm[i]) : 1.0;
                to[k] += (m * m + spread_ * variance) * size * size;
            }
            if (key_noise_) {
                noise[h / n_shared] +=
                    head_noise(mean.subspan(h * n_tokens, n_tokens), square.subspan(h * n_tokens, n_tokens),
                               norm.subspan(h * n_tokens, n_tokens)) /
                    static_cast<double>(n_shared);
            }
        }
        if (key_noise_) {
            out.stats["key_noise"] = std::move(noise);
        }
        for (double & x : out.score) {
            x = std::sqrt(x / static_cast<double>(n_shared));
        }
        return out;
    }

  private:
    /// An error x of a key's product with a query moves the attention on its row by a (1 - a) x, and the output by that
    /// times the distance of the row's value from the output.
    static double head_noise(std::span<const float> mean, std::span<const float> square, std::span<const float> norm) {
        double output = 0, sum = 0;
        for (size_t k = 0; k < mean.size(); ++k) {
            output += static_cast<double>(mean[k]) * static_cast<double>(norm[k]);
        }
        for (size_t k = 0; k < mean.size(); ++k) {
            const double moved = std::max(0.0, static_cast<double>(mean[k]) - static_cast<double>(square[k]));
            sum += moved * moved * (static_cast<double>(norm[k]) * static_cast<double>(norm[k]) + output * output);
        }
        return sum;
    }

    double spread_;
    bool output_, key_noise_;
};

/// The scores of all layers and KV heads, one list after the other.
std::vector<Values> lists_of(const PromptShape & prompt, std::span<const LayerScore> scores,
                             std::span<const Run> runs) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    std::vector<Values> lists;
    for (const LayerScore & layer : scores) {
        for (size_t g = 0; g < n_score_sets(prompt, layer); ++g) {
            lists.push_back(
                {.all = std::span(layer.score).subspan(g * n_tokens, n_tokens), .runs = runs, .n = n_places(runs)});
        }
    }
    return lists;
}

/// One pool of the rows of all layers and KV heads.
class SieveAllocator final : public Allocator {
  public:
    SieveAllocator(double keep, double safe) : keep_(keep), safe_(safe) {}

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_);
        const int64_t n_safe = trunc_guarded(static_cast<double>(n_kept) * safe_);
        const std::vector<Run> runs = runs_of(field.counted);
        const std::vector<Values> pool = lists_of(prompt, scores, runs);
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

/// One pool of bytes: rows and row types of all layers and KV heads.
class SieveByteAllocator final : public Allocator {
  public:
    SieveByteAllocator(double keep, double safe, double noise) : keep_(keep), safe_(safe), noise_(noise) {}

    void observe(Traits & traits) const override { traits.row_types = true; }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        const std::vector<Run> runs = runs_of(field.counted);
        std::vector<ByteList> lists;
        for (const Values & values : lists_of(prompt, scores, runs)) {
            lists.push_back({.scores = values});
        }
        for (size_t at = 0; const LayerScore & layer : scores) {
            const size_t n_set = n_score_sets(prompt, layer);
            for (size_t g = 0; g < n_set; ++g, ++at) {
                lists[at].key_noise = noise_ * noise_of(layer, g, n_set);
            }
        }
        const int64_t budget =
            static_cast<int64_t>(lists.size()) * rows_of_keep(field.n_rows, keep_) * row_cost(KvType::f16);
        const std::vector<ByteShare> shares =
            share_bytes(lists, budget, safe_, prompt.head_dim % kQuantisedBlock == 0, field.n_threads);
        Allocation out;
        for (size_t at = 0; const LayerScore & layer : scores) {
            LayerBudget budget_of;
            for (size_t g = 0; g < n_score_sets(prompt, layer); ++g, ++at) {
                budget_of.n_kept.push_back(shares[at].n_kept);
                budget_of.types.push_back(shares[at].type);
            }
            out.layers.push_back(std::move(budget_of));
        }
        return out;
    }

  private:
    static constexpr int32_t kQuantisedBlock = 32;

    /// What the scorer says of a list's keys; 0 where it is another scorer.
    static double noise_of(const LayerScore & layer, size_t g, size_t n_set) {
        const auto found = layer.stats.find("key_noise");
        if (found == layer.stats.end()) {
            return 0;
        }
        const auto & of_heads = std::get<std::vector<double>>(found->second);
        if (n_set == of_heads.size()) {
            return of_heads[g];
        }
        return std::accumulate(of_heads.begin(), of_heads.end(), 0.0) / static_cast<double>(of_heads.size());
    }

    double keep_, safe_, noise_;
};

bool chooses_types(const BoundParams & p) {
    return p.has(kPrecision) && p.word(kPrecision) == "auto";
}

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
                                     return std::make_unique<SieveScorer>(p.number("spread"), p.number("output") != 0,
                                                                          chooses_types(p));
                                 }},
            .allocator = AllocatorPart{
                .name = "sieve",
                .summary = "The best scores of all layers and KV heads, a safe share to each of them.",
                .needs_mass = true,
                .params = {{.name = "safe",
                            .help = "share of its n(T) rows that every layer and KV head keeps",
                            .def = 0.5,
                            .min = 0,
                            .max = 1},
                           {.name = kPrecision,
                            .help = "auto: every layer and KV head gets rows of f16, q8_0 or q4_0, and "
                                    "keep is a share of the bytes of all rows in f16; cache: rows are "
                                    "all of the cache's type",
                            .def = std::string("cache"),
                            .choices = {"cache", "auto"}},
                           {.name = "noise",
                            .help = "precision=auto: weight of the error of quantised keys beside that "
                                    "of values",
                            .def = 4.0,
                            .min = 0,
                            .max = 1000}},
                .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                    if (chooses_types(p)) {
                        return std::make_unique<SieveByteAllocator>(p.keep(), p.number("safe"), p.number("noise"));
                    }
                    return std::make_unique<SieveAllocator>(p.keep(), p.number("safe"));
                }}};
}

}  // namespace kvsieve
