// SPDX-License-Identifier: MIT
// CAKE (arXiv 2503.12491): layers share the cache by how spread out (entropy) and how changing (variance) the attention
// of the last queries is; within a layer rows are ranked by its mean and variance.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

// Stats of a layer, plain sums over heads, window queries and the keys before the window.
constexpr const char * kEntropy = "window_entropy";
constexpr const char * kVariance = "window_variance";

/// Attention of the window's queries on the keys before it.
struct WindowMoments {
    std::vector<double> mean, variance;  ///< [H, T - w], over the w queries; divisor of the variance w - 1
    double entropy = 0;                  ///< -sum of A ln(A + 1e-10)
};

WindowMoments window_moments(const PromptShape & prompt, int32_t il, const LayerObservation & obs, int32_t window) {
    const auto n = static_cast<size_t>(prompt.n_tokens - window);
    const size_t size = static_cast<size_t>(prompt.n_head) * n;
    const auto w = static_cast<double>(window);
    // Shifted by the first query's row: equal rows have variance 0 exactly, and one pass loses no digits to the mean.
    std::vector<double> shift(size), sum(size, 0.0), squares(size, 0.0);
    std::vector<uint8_t> begun(static_cast<size_t>(prompt.n_head), 0);
    WindowMoments out;
    for_each_row(prompt, il, obs, window_positions(prompt, window), [&](size_t h, std::span<const float> row) {
        for (size_t k = 0; k < n; ++k) {
            const auto a = static_cast<double>(row[k]);
            if (begun[h] == 0) {
                shift[h * n + k] = a;
            }
            const double x = a - shift[h * n + k];
            sum[h * n + k] += x;
            squares[h * n + k] += x * x;
            out.entropy -= a * std::log(a + 1e-10);
        }
        begun[h] = 1;
    });
    out.mean.resize(size);
    out.variance.assign(size, 0.0);
    for (size_t i = 0; i < size; ++i) {
        out.mean[i] = shift[i] + sum[i] / w;
        if (window > 1) {
            out.variance[i] = std::max(0.0, (squares[i] - sum[i] * sum[i] / w) / (w - 1));
        }
    }
    return out;
}

void leave_stats(const WindowMoments & moments, LayerScore & score) {
    score.stats[kEntropy] = moments.entropy;
    score.stats[kVariance] = std::accumulate(moments.variance.begin(), moments.variance.end(), 0.0);
}

class CakeScorer final : public Scorer {
  public:
    CakeScorer(int32_t window, int32_t kernel, double gamma) : window_(window), kernel_(kernel), gamma_(gamma) {}

    void observe(Traits & traits) const override { observe_window(traits, window_); }
    void check(const PromptShape & prompt) const override { check_window(prompt, window_); }
    Protected protects() const override { return {.first = 0, .last = window_}; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        WindowMoments moments = window_moments(prompt, il, obs, window_);
        LayerScore out;
        leave_stats(moments, out);
        std::vector<double> heads = std::move(moments.mean);
        for (size_t i = 0; i < heads.size(); ++i) {
            heads[i] += gamma_ * moments.variance[i];
        }
        pool_heads(prompt, heads, kernel_);
        out.score = with_protected(prompt, group_mean(prompt, heads), window_, /*first=*/false);
        return out;
    }

  private:
    int32_t window_, kernel_;
    double gamma_;
};

class CakeAllocator final : public Allocator {
  public:
    CakeAllocator(double keep, int32_t window, double tau1, double tau2)
        : keep_(keep), window_(window), tau1_(tau1), tau2_(tau2) {}

    void observe(Traits & traits) const override { observe_window(traits, window_); }
    void check(const PromptShape & prompt) const override { check_window(prompt, window_); }

    void add_stats(const PromptShape & prompt, const Field & /*field*/, int32_t il, const LayerObservation & obs,
                   LayerScore & score) const override {
        if (!score.stats.contains(kEntropy)) {
            leave_stats(window_moments(prompt, il, obs, window_), score);
        }
    }

    Allocation allocate(const PromptShape & /*prompt*/, const Field & field,
                        std::span<const LayerScore> scores) const override {
        const int64_t n_kept = rows_of_keep(field.n_rows, keep_), w = field.n_protected;
        Allocation out;
        std::vector<double> preference = preferences(scores), weights = preference;
        if (std::all_of(weights.begin(), weights.end(), [](double x) { return x == 0; })) {
            std::fill(weights.begin(), weights.end(), 1.0);
        }
        if (n_kept <= w) {
            out.layers.assign(scores.size(), LayerBudget{{n_kept}});
        } else {
            const int64_t total = (n_kept - w) * static_cast<int64_t>(scores.size());
            for (const int64_t b : spread_budgets(weights, total, field.n_rows - w)) {
                out.layers.push_back({{b + w}});
            }
        }
        out.extra["preference"] = std::move(preference);
        return out;
    }

  private:
    /// p_l = e^(1/tau1) v^(1/tau2)
    std::vector<double> preferences(std::span<const LayerScore> scores) const {
        constexpr double kMost = 1e300;  // keeps sums finite, whatever was observed
        std::vector<double> p;
        for (const LayerScore & layer : scores) {
            // An entropy of rows that are all 0 or 1 is a rounding error below 0.
            const double e = std::max(0.0, layer_stat(layer, kEntropy)), v = layer_stat(layer, kVariance);
            const double product = std::pow(e, 1 / tau1_) * std::pow(v, 1 / tau2_);
            p.push_back(std::isnan(product) ? 0.0 : std::min(product, kMost));  // NaN: 0 times infinity
        }
        return p;
    }

    double keep_;
    int32_t window_;
    double tau1_, tau2_;
};

ParamSpec tau_param(std::string name, std::string help) {
    return {.name = std::move(name), .help = std::move(help), .def = 1.0, .min = 0.1, .max = 10};
}

}  // namespace

MethodFile cake_file() {
    return {.method = MethodRow{.name = "cake",
                                .paper = "arXiv 2503.12491",
                                .summary = "Gives more rows to layers whose attention is spread out and changing, and "
                                           "keeps those with high and changing attention.",
                                .scorer = "cake",
                                .allocator = "cake"},
            .scorer = ScorerPart{.name = "cake",
                                 .summary = "Mean and variance of the attention of the last window's queries, pooled; "
                                            "the window stays.",
                                 .per_head = true,
                                 .mass = true,
                                 .params = {window_param(32),
                                            kernel_param(5),
                                            {.name = "gamma",
                                             .help = "weight of the variance beside the mean",
                                             .def = 200.0,
                                             .min = 0,
                                             .max = 1e6}},
                                 .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<CakeScorer>(p.integer("window"), p.integer("kernel"),
                                                                         p.number("gamma"));
                                 }},
            .allocator = AllocatorPart{
                .name = "cake",
                .summary = "Budgets by the entropy and the variance of the last window's attention.",
                .params = {tau_param("tau1", "temperature of the entropy in a layer's preference"),
                           tau_param("tau2", "temperature of the variance in a layer's preference"), window_param(32)},
                .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                    return std::make_unique<CakeAllocator>(p.keep(), p.integer("window"), p.number("tau1"),
                                                           p.number("tau2"));
                }}};
}

}  // namespace kvsieve
