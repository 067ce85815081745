// SPDX-License-Identifier: MIT
// AirCache's layer budgets (arXiv 2503.23956).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "policy/methods/aircache.h"

namespace kvsieve {
namespace {

/// Strength and skewness of a layer's scores.
struct Shape {
    double strength = 0;
    double skew = 0;
};

Shape shape_of(std::span<const double> scores) {
    const auto n = static_cast<double>(scores.size());
    Shape out;
    out.strength = std::accumulate(scores.begin(), scores.end(), 0.0);
    const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
    if (scores.size() < 3 || *low == *high) {  // equal scores: the computed mean may miss them by a rounding error
        return out;
    }
    const double mu = out.strength / n;
    double squares = 0;
    for (const double x : scores) {
        squares += (x - mu) * (x - mu);
    }
    const double sd = std::sqrt(squares / (n - 1));
    if (!(sd > 0)) {
        return out;
    }
    double cubes = 0;
    for (const double x : scores) {
        const double z = (x - mu) / sd;
        cubes += z * z * z;
    }
    out.skew = n / ((n - 1) * (n - 2)) * cubes;
    return out;
}

/// max(v, 0) / mean(max(v, 0)), or 1 where the mean is 0: the mean of the result is 1. [L]
std::vector<double> normalised(std::vector<double> v) {
    double mean = 0;
    for (double & x : v) {
        x = std::max(x, 0.0);
        mean += x;
    }
    mean /= static_cast<double>(v.size());
    for (double & x : v) {
        x = mean > 0 ? x / mean : 1.0;
    }
    return v;
}

class StrengthShareAllocator final : public Allocator {
  public:
    StrengthShareAllocator(double keep, LayerWeights weights) : keep_(keep), weights_(weights) {}

    bool layerwise() const override { return weights_ == LayerWeights::uniform; }

    void add_stats(const PromptShape & prompt, const Field & field, int32_t /*il*/, const LayerObservation & /*obs*/,
                   LayerScore & score) const override {
        const Shape shape = shape_of(weighing_scores(prompt, field, score));
        score.stats["strength"] = shape.strength;
        score.stats["skew"] = shape.skew;
    }

    LayerBudget allocate_layer(const PromptShape & prompt, const Field & field, int32_t il,
                               const LayerScore & score) const override {
        if (!layerwise()) {
            return Allocator::allocate_layer(prompt, field, il, score);
        }
        const std::vector<double> weights(static_cast<size_t>(prompt.n_layer), 1.0);
        return {{counts(capped_shares(weights, keep_), field)[static_cast<size_t>(il)]}};
    }

    Allocation allocate(const PromptShape & /*prompt*/, const Field & field,
                        std::span<const LayerScore> scores) const override {
        std::vector<double> strength(scores.size(), 0.0), skew(scores.size(), 0.0);
        if (!layerwise() || std::all_of(scores.begin(), scores.end(),
                                        [](const LayerScore & layer) { return layer.stats.contains("strength"); })) {
            strength = layer_stats(scores, "strength");
            skew = layer_stats(scores, "skew");
        }
        std::vector<double> weights = layer_weights(strength, skew);
        std::vector<double> shares = capped_shares(weights, keep_);
        Allocation out;
        std::vector<int32_t> n_kept;
        for (const int64_t n : counts(shares, field)) {
            out.layers.push_back({{n}});
            n_kept.push_back(static_cast<int32_t>(n));
        }
        out.extra = {{field.scope == Scope::visual ? "n_visual" : "layer_budget", std::move(n_kept)},
                     {"strength", std::move(strength)},
                     {"skew", std::move(skew)},
                     {"weights", std::move(weights)},
                     {"layer_retain", std::move(shares)}};
        return out;
    }

  private:
    std::vector<double> layer_weights(const std::vector<double> & strength, const std::vector<double> & skew) const {
        const std::vector<double> a = normalised(strength), b = normalised(skew);
        std::vector<double> w(a.size(), 1.0);
        for (size_t l = 0; l < w.size(); ++l) {
            switch (weights_) {
                case LayerWeights::both:
                    w[l] = (a[l] + b[l]) / 2;
                    break;
                case LayerWeights::strength:
                    w[l] = a[l];
                    break;
                case LayerWeights::skew:
                    w[l] = b[l];
                    break;
                case LayerWeights::uniform:
                    break;
            }
        }
        return w;
    }

    std::vector<int64_t> counts(std::span<const double> shares, const Field & field) const {
        const auto n_layer = static_cast<double>(shares.size());
        const auto total = static_cast<int64_t>(std::floor(keep_ * n_layer * static_cast<double>(field.n_rows) + 0.5));
        return largest_remainder(shares, field.n_rows, total);
    }

    double keep_;
    LayerWeights weights_;
};

}  // namespace

std::unique_ptr<Allocator> strength_share_allocator(double keep, LayerWeights weights) {
    return std::make_unique<StrengthShareAllocator>(keep, weights);
}

}  // namespace kvsieve
