// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kvsieve/error.h"
#include "policy/allocator.h"
#include "policy/budget.h"

namespace kvsieve {
namespace {

constexpr int kMaxHalvings = 40;
constexpr double kTolerance = 5.0;  // tokens over all layers, as published
constexpr int64_t kProtected = 2;   // P: the first and the last token

/// C: shares of the layer's scores, descending, summed up. [T]
std::vector<double> cumulative_shares(const LayerScore & layer, size_t n_tokens) {
    if (layer.score.size() != n_tokens) {
        throw Error(ErrorCode::invalid_argument,
                    "the prefix search needs one score per token for all KV heads: expected " +
                        std::to_string(n_tokens) + " scores, got " + std::to_string(layer.score.size()));
    }
    std::vector<double> c = layer.score;
    const double sum = std::accumulate(c.begin(), c.end(), 0.0);
    std::sort(c.begin(), c.end(), std::greater<>());
    double total = 0;
    for (double & value : c) {
        // A layer without any attention mass (never by softmax) counts as evenly spread.
        total += sum > 0 ? value / sum : 1.0 / static_cast<double>(n_tokens);
        value = total;
    }
    return c;
}

/// T - (j_l + 1) - P, what the layer forgets when it keeps the shortest prefix of mass m. [L]
std::vector<int64_t> forget_at(const std::vector<std::vector<double>> & c, double m) {
    std::vector<int64_t> raw;
    for (const std::vector<double> & layer : c) {
        const auto j = std::lower_bound(layer.begin(), layer.end(), m) - layer.begin();
        raw.push_back(std::max<int64_t>(0, static_cast<int64_t>(layer.size()) - (j + 1) - kProtected));
    }
    return raw;
}

class PrefixSearchAllocator final : public Allocator {
  public:
    explicit PrefixSearchAllocator(double keep) : keep_(keep) {}

    bool evicts_while_decoding() const override { return true; }

    Allocation allocate(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        std::vector<std::vector<double>> c;
        for (const LayerScore & layer : scores) {
            c.push_back(cumulative_shares(layer, n_tokens));
        }
        const double target =
            (static_cast<double>(prompt.n_layer) * static_cast<double>(prompt.n_tokens)) * (1 - keep_);

        double left = 0, right = 1, threshold = 0;
        bool met = false;
        int iterations = 0;
        while (!met && iterations < kMaxHalvings) {
            ++iterations;
            threshold = (left + right) / 2;
            const auto raw = forget_at(c, threshold);
            const auto n = static_cast<double>(std::accumulate(raw.begin(), raw.end(), int64_t{0}));
            met = std::abs(n - target) < kTolerance;
            (n < target ? right : left) = threshold;
        }
        if (!met) {
            // The published loop would not end. The left end forgets at least the target, so that the rescale
            // below can only shrink counts.
            threshold = left;
        }

        const std::vector<int64_t> raw = forget_at(c, threshold);
        const auto sum = static_cast<double>(std::accumulate(raw.begin(), raw.end(), int64_t{0}));
        Allocation out;
        std::vector<int32_t> forget, raw_forget;
        for (const int64_t r : raw) {
            const int64_t f = sum > 0 ? trunc_guarded((static_cast<double>(r) * target) / sum) : 0;
            raw_forget.push_back(static_cast<int32_t>(r));
            forget.push_back(static_cast<int32_t>(f));
            out.layers.push_back({{prompt.n_tokens - f}});
            out.rho.push_back(static_cast<double>(f) / static_cast<double>(prompt.n_tokens));
        }
        if (std::all_of(forget.begin(), forget.end(), [](int32_t f) { return f <= 0; })) {
            out.rho.clear();
        }
        out.extra = {{"forget", std::move(forget)},
                     {"raw_forget", std::move(raw_forget)},
                     {"threshold", threshold},
                     {"iterations", int64_t{iterations}},
                     {"tolerance_met", met}};
        return out;
    }

  private:
    double keep_;
};

}  // namespace

std::unique_ptr<Allocator> prefix_search_allocator(double keep) {
    return std::make_unique<PrefixSearchAllocator>(keep);
}

}  // namespace kvsieve
