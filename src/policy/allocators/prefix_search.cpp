// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "policy/allocator.h"
#include "policy/budget.h"
#include "policy/order.h"
#include "policy/parallel.h"

namespace kvsieve {
namespace {

constexpr int kMaxHalvings = 40;
constexpr double kTolerance = 5.0;  // tokens over all layers, as published

/// C: shares of a layer's scores, descending, summed up, of the rows that weigh; as far as they were asked for.
class CumulativeShares {
  public:
    CumulativeShares() = default;
    CumulativeShares(const PromptShape & prompt, const Field & field, const LayerScore & layer) {
        std::vector<double> some;
        std::span<const double> scores = layer.score;
        if (n_score_sets(prompt, layer) > 1 ||
            std::find(field.weighs.begin(), field.weighs.end(), 0) != field.weighs.end()) {
            some = weighing_scores(prompt, field, layer);
            scores = some;
        }
        sum_ = std::accumulate(scores.begin(), scores.end(), 0.0);
        sorted_.emplace(scores);
        c_.reserve(scores.size());
    }

    [[nodiscard]] bool reaches(double m) const {
        return c_.size() == sorted_->size() || (!c_.empty() && c_.back() >= m);
    }

    /// Sums up until the mass m is reached.
    void extend(double m) {
        const auto n = static_cast<double>(sorted_->size());
        while (!reaches(m)) {
            sorted_->sort_more();
            for (size_t i = c_.size(); i < sorted_->n_sorted(); ++i) {
                // A layer without any attention mass (never by softmax) counts as evenly spread.
                total_ += sum_ > 0 ? sorted_->at(i) / sum_ : 1.0 / n;
                c_.push_back(total_);
            }
        }
    }

    /// First index where C >= m, of those that are summed up.
    [[nodiscard]] int64_t first_at(double m) const { return std::lower_bound(c_.begin(), c_.end(), m) - c_.begin(); }

  private:
    std::optional<Descending> sorted_;
    double sum_ = 0, total_ = 0;
    std::vector<double> c_;
};

/// N - (j_l + 1) - P, what the layer forgets when it keeps the shortest prefix of mass m. [L]
std::vector<int64_t> forget_at(std::vector<CumulativeShares> & c, const Field & field, double m) {
    if (!std::all_of(c.begin(), c.end(), [m](const CumulativeShares & layer) { return layer.reaches(m); })) {
        parallel_for(c.size(), field.n_threads, [&](size_t il) { c[il].extend(m); });
    }
    std::vector<int64_t> raw;
    raw.reserve(c.size());
    for (const CumulativeShares & layer : c) {
        raw.push_back(std::max<int64_t>(0, field.n_rows - (layer.first_at(m) + 1) - field.n_protected));
    }
    return raw;
}

class PrefixSearchAllocator final : public Allocator {
  public:
    explicit PrefixSearchAllocator(double keep) : keep_(keep) {}

    bool evicts_while_decoding() const override { return true; }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        std::vector<CumulativeShares> c(scores.size());
        parallel_for(scores.size(), field.n_threads,
                     [&](size_t il) { c[il] = CumulativeShares(prompt, field, scores[il]); });
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
