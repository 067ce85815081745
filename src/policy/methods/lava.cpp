// SPDX-License-Identifier: MIT
// LAVa (arXiv 2509.09754): the attention of the last queries times the size of the values; layers share the cache by
// the entropy of these scores, the KV heads of a layer by where its best scores lie.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "policy/head_pool.h"
#include "policy/parallel.h"
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

constexpr const char * kEntropy = "score_entropy";

class LavaScorer final : public Scorer {
  public:
    LavaScorer(int32_t window, int32_t kernel) : window_(window), kernel_(kernel) {}

    void observe(Traits & traits) const override {
        observe_window(traits, window_);
        traits.values = true;
    }
    void check(const PromptShape & prompt) const override { check_window(prompt, window_); }
    Protected protects() const override { return {.first = 0, .last = window_}; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens), d = static_cast<size_t>(prompt.head_dim);
        const auto n_group = static_cast<size_t>(prompt.n_head_kv), n = n_tokens - static_cast<size_t>(window_);
        const auto n_shared = static_cast<size_t>(prompt.n_head) / n_group;  // R
        const auto values = observed(obs.values, n_group * n_tokens * d, "values", il);
        const std::vector<double> heads = window_attention(prompt, il, obs, window_);
        std::vector<double> scores(n_group * n, 0.0);
        for (size_t g = 0; g < n_group; ++g) {
            double largest = 0;  // max over k < T - w of |V[g,k]|_1
            for (size_t k = 0; k < n; ++k) {
                double sum = 0;
                for (const float x : values.subspan((g * n_tokens + k) * d, d)) {
                    sum += std::abs(static_cast<double>(x));
                }
                largest = std::max(largest, sum);
            }
            for (size_t r = 0; r < n_shared; ++r) {
                const std::vector<double> pooled =
                    max_pool(std::span(heads).subspan((g * n_shared + r) * n, n), kernel_);
                for (size_t k = 0; k < n; ++k) {
                    scores[g * n + k] = std::max(scores[g * n + k], pooled[k] * largest);
                }
            }
        }
        return {.score = with_protected(prompt, scores, window_, /*first=*/false)};
    }

  private:
    /// Stride 1; the window is cut at both ends.
    static std::vector<double> max_pool(std::span<const double> x, int32_t kernel) {
        const auto half = static_cast<size_t>(kernel / 2);
        std::vector<double> out(x.size());
        std::vector<size_t> falling(x.size());  // indices of falling values; the front is the window's largest
        size_t front = 0, back = 0;
        for (size_t i = 0, next = 0; i < x.size(); ++i) {
            for (; next < x.size() && next <= i + half; ++next) {
                while (back > front && x[falling[back - 1]] <= x[next]) {
                    --back;
                }
                falling[back++] = next;
            }
            while (falling[front] + half < i) {
                ++front;
            }
            out[i] = x[falling[front]];
        }
        return out;
    }

    int32_t window_, kernel_;
};

class LavaAllocator final : public Allocator {
  public:
    LavaAllocator(double keep, double floor, bool per_head) : keep_(keep), floor_(floor), per_head_(per_head) {}

    /// e = -sum of x ln(x + 1e-16) / ln(n), x the shares of the n scores of all KV heads that weigh.
    void add_stats(const PromptShape & prompt, const Field & field, int32_t /*il*/, const LayerObservation & /*obs*/,
                   LayerScore & score) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        double sum = 0, n = 0;
        for (size_t i = 0; i < score.score.size(); ++i) {
            if (field.weighs[i % n_tokens] != 0) {
                sum += score.score[i];
                n += 1;
            }
        }
        double entropy = 0;
        for (size_t i = 0; i < score.score.size(); ++i) {
            if (field.weighs[i % n_tokens] != 0) {
                const double x = score.score[i] / (sum + 1e-16);
                entropy -= x * std::log(x + 1e-16);
            }
        }
        score.stats[kEntropy] = n <= 1 ? 1.0 : entropy / std::log(n);
    }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_), w = field.n_protected;
        Allocation out;
        std::vector<double> entropy = layer_stats(scores, kEntropy);
        std::vector<int32_t> layer_budget(scores.size(), 0);
        if (n_kept <= w) {
            out.layers.assign(scores.size(), LayerBudget{{n_kept}});
        } else {
            const auto total = static_cast<double>((n_kept - w) * static_cast<int64_t>(scores.size()));
            const std::vector<double> shares = capped_amounts(entropy, total, static_cast<double>(field.n_rows - w));
            out.layers.resize(scores.size());
            parallel_for_with<CutScratch>(scores.size(), field.n_threads, [&](size_t il, CutScratch & scratch) {
                const int64_t b = trunc_guarded(shares[il]);
                layer_budget[il] = static_cast<int32_t>(b);
                out.layers[il] = divide(prompt, field, scores[il], b, scratch);
            });
        }
        out.extra["entropy"] = std::move(entropy);
        out.extra["layer_budget"] = std::move(layer_budget);
        return out;
    }

  private:
    /// b rows per KV head on average, besides the window.
    LayerBudget divide(const PromptShape & prompt, const Field & field, const LayerScore & score, int64_t b,
                       CutScratch & scratch) const {
        const size_t n_set = n_score_sets(prompt, score);
        const int64_t n = field.n_rows - field.n_protected;
        if (!per_head_ || b == n) {
            return {{b + field.n_protected}};
        }
        const std::vector<PoolCut> cuts =
            cut_sets(prompt, score, field.weighs, 0, static_cast<int64_t>(n_set) * b, scratch);
        LayerBudget out;
        for (const PoolCut & cut : cuts) {
            const int64_t c = n - cut.n_drop;
            const int64_t m = round_half_even(static_cast<double>(c) * (1 - floor_) +
                                              static_cast<double>(trunc_guarded(static_cast<double>(b) * floor_)));
            out.n_kept.push_back(std::min(m, n) + field.n_protected);
        }
        return out;
    }

    double keep_, floor_;
    bool per_head_;  // else one set for all KV heads, which nothing is divided among
};

}  // namespace

MethodFile lava_file() {
    return {
        .method = MethodRow{.name = "lava",
                            .paper = "arXiv 2509.09754",
                            .summary = "Ranks rows by attention times the size of the values, with layer budgets by "
                                       "entropy that KV heads compete for.",
                            .scorer = "lava",
                            .allocator = "lava"},
        .scorer = ScorerPart{.name = "lava",
                             .summary = "Attention of the last window's queries times the largest value of the "
                                        "head, max-pooled; the window stays.",
                             .per_head = true,
                             .mass = true,
                             .params = {window_param(32), kernel_param(7)},
                             .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                 return std::make_unique<LavaScorer>(p.integer("window"), p.integer("kernel"));
                             }},
        .allocator =
            AllocatorPart{.name = "lava",
                          .summary = "Budgets by the entropy of a layer's scores, which its KV heads compete for.",
                          .needs_mass = true,
                          .params = {{.name = "floor",
                                      .help = "share of the layer's budget that all KV heads get alike",
                                      .def = 0.2,
                                      .min = 0,
                                      .max = 1}},
                          .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                              const bool per_head = p.has("granularity") && p.word("granularity") == "head";
                              return std::make_unique<LavaAllocator>(p.keep(), p.number("floor"), per_head);
                          }}};
}

}  // namespace kvsieve
