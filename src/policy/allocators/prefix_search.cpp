// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/allocator.h"
#include "policy/budget.h"
#include "policy/order.h"
#include "policy/parallel.h"

namespace kvsieve {
namespace {

constexpr int kMaxHalvings = 40;
constexpr double kTolerance = 5.0;  // tokens over all layers, as published

/// C: shares of the layer's scores, descending, summed up, of the rows that weigh.
std::vector<double> cumulative_shares(const PromptShape & prompt, const Field & field, const LayerScore & layer) {
    std::vector<double> c = weighing_scores(prompt, field, layer);
    const double sum = std::accumulate(c.begin(), c.end(), 0.0);
    sort_descending(c);
    const auto n = static_cast<double>(c.size());
    double total = 0;
    for (double & value : c) {
        // A layer without any attention mass (never by softmax) counts as evenly spread.
        total += sum > 0 ? value / sum : 1.0 / n;
        value = total;
    }
    return c;
}

/// N - (j_l + 1) - P, what the layer forgets when it keeps the shortest prefix of mass m. [L]
std::vector<int64_t> forget_at(const std::vector<std::vector<double>> & c, const Field & field, double m) {
    std::vector<int64_t> raw;
    for (const std::vector<double> & layer : c) {
        const auto j = std::lower_bound(layer.begin(), layer.end(), m) - layer.begin();
        raw.push_back(std::max<int64_t>(0, field.n_rows - (j + 1) - field.n_protected));
    }
    return raw;
}

class PrefixSearchAllocator final : public Allocator {
  public:
    explicit PrefixSearchAllocator(double keep) : keep_(keep) {}

    bool evicts_while_decoding() const override { return true; }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        std::vector<std::vector<double>> c(scores.size());
        parallel_for(scores.size(), field.n_threads,
                     [&](size_t il) { c[il] = cumulative_shares(prompt, field, scores[il]); });
        const double target = (static_cast<double>(prompt.n_layer) * static_cast<double>(field.n_rows)) * (1 - keep_);

        double left = 0, right = 1, threshold = 0;
        bool met = false;
        int iterations = 0;
        while (!met && iterations < kMaxHalvings) {
            ++iterations;
            threshold = (left + right) / 2;
            const auto raw = forget_at(c, field, threshold);
            const auto n = static_cast<double>(std::accumulate(raw.begin(), raw.end(), int64_t{0}));
            met = std::abs(n - target) < kTolerance;
            (n < target ? right : left) = threshold;
        }
        if (!met) {
            // The published loop would not end. The left end forgets at least the target, so that the rescale
            // below can only shrink counts.
            threshold = left;
        }

        const std::vector<int64_t> raw = forget_at(c, field, threshold);
        const auto sum = static_cast<double>(std::accumulate(raw.begin(), raw.end(), int64_t{0}));
        Allocation out;
        std::vector<int32_t> forget, raw_forget;
        for (const int64_t r : raw) {
            const int64_t f = sum > 0 ? trunc_guarded((static_cast<double>(r) * target) / sum) : 0;
            raw_forget.push_back(static_cast<int32_t>(r));
            forget.push_back(static_cast<int32_t>(f));
            out.layers.push_back({{field.n_rows - f}});
            out.rho.push_back(static_cast<double>(f) / static_cast<double>(field.n_rows));
        }
        if (field.scope == Scope::visual ||
            std::all_of(forget.begin(), forget.end(), [](int32_t f) { return f <= 0; })) {
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
