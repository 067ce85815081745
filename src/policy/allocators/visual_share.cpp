// SPDX-License-Identifier: MIT
#include <cmath>

#include "policy/allocator.h"
#include "policy/budget.h"
#include "policy/prompt.h"

namespace kvsieve {
namespace {

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

class VisualShareAllocator final : public Allocator {
  public:
    VisualShareAllocator(double keep, LayerWeights weights) : keep_(keep), weights_(weights) {}

    bool layerwise() const override { return weights_ == LayerWeights::uniform; }

    LayerBudget allocate_layer(const PromptShape & prompt, int32_t il, const LayerScore & score) const override {
        if (!layerwise()) {
            return Allocator::allocate_layer(prompt, il, score);
        }
        const std::vector<double> weights(static_cast<size_t>(prompt.n_layer), 1.0);
        const auto n_visual = static_cast<int64_t>(visual_positions(prompt).size());
        const auto counts = visual_counts(capped_shares(weights, keep_), n_visual);
        return {{prompt.n_tokens - n_visual + counts[static_cast<size_t>(il)]}};
    }

    Allocation allocate(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        std::vector<double> strength, skew;
        for (const LayerScore & layer : scores) {
            strength.push_back(layer_stat(layer, "strength"));
            skew.push_back(layer_stat(layer, "skew"));
        }
        std::vector<double> weights = layer_weights(strength, skew);
        std::vector<double> shares = capped_shares(weights, keep_);
        const auto n_visual = static_cast<int64_t>(visual_positions(prompt).size());
        const std::vector<int64_t> counts = visual_counts(shares, n_visual);

        Allocation out;
        std::vector<int32_t> n_kept_visual;
        for (const int64_t n : counts) {
            out.layers.push_back({{prompt.n_tokens - n_visual + n}});
            n_kept_visual.push_back(static_cast<int32_t>(n));
        }
        out.extra = {{"n_visual", std::move(n_kept_visual)},
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

    std::vector<int64_t> visual_counts(std::span<const double> shares, int64_t n_visual) const {
        const auto n_layer = static_cast<double>(shares.size());
        const auto total = static_cast<int64_t>(std::floor(keep_ * n_layer * static_cast<double>(n_visual) + 0.5));
        return largest_remainder(shares, n_visual, total);
    }

    double keep_;
    LayerWeights weights_;
};

}  // namespace

std::unique_ptr<Allocator> visual_share_allocator(double keep, LayerWeights weights) {
    return std::make_unique<VisualShareAllocator>(keep, weights);
}

}  // namespace kvsieve
