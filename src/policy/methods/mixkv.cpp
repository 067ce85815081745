// SPDX-License-Identifier: MIT
// MixKV: SnapKV's attention mixed with the values' norms and the keys' diversity, by how redundant a
// head's keys are. The redundancy is computed from the prompt, as the paper's formula has it.
#include <algorithm>
#include <cmath>

#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

/// x scaled to [0, 1] by its range, then to the mean `to`. `eps` keeps the range from being 0; 0 / 0 is 0.
std::vector<double> scaled(std::vector<double> x, double to, double eps) {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double least = *low, range = *high - *low + eps;
    double sum = 0;
    for (double & y : x) {
        y = range > 0 ? (y - least) / range : 0.0;
        sum += y;
    }
    const double mean = sum / static_cast<double>(x.size());
    for (double & y : x) {
        y = y * to / (mean + 1e-8);
    }
    return x;
}

double norm(std::span<const float> x) {
    double sum = 0;
    for (const float v : x) {
        sum += static_cast<double>(v) * static_cast<double>(v);
    }
    return std::sqrt(sum);
}

class MixScorer final : public Scorer {
  public:
    MixScorer(int32_t window, int32_t kernel) : window_(window), kernel_(kernel) {}

    void observe(Traits & traits) const override {
        observe_window(traits, window_);
        traits.keys = true;
        traits.values = true;
    }
    void check(const PromptShape & prompt) const override { check_window(prompt, window_); }
    Protected protects() const override { return {.first = 0, .last = window_}; }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens), d = static_cast<size_t>(prompt.head_dim);
        const auto n_group = static_cast<size_t>(prompt.n_head_kv), n = n_tokens - static_cast<size_t>(window_);
        const auto keys = observed(obs.keys, n_group * n_tokens * d, "keys", il);
        const auto values = observed(obs.values, n_group * n_tokens * d, "values", il);
        std::vector<double> scores = pooled_window_attention(prompt, il, obs, window_, kernel_);  // [G, n]
        std::vector<double> redundancy;
        for (size_t g = 0; g < n_group; ++g) {
            const auto attention = std::span(scores).subspan(g * n, n);
            double mean = 0;
            for (const double x : attention) {
                mean += x;
            }
            mean /= static_cast<double>(n);
            const Diversity keys_of_head = diversity(keys.subspan(g * n_tokens * d, n_tokens * d), n_tokens, n, d);
            std::vector<double> norms;
            for (size_t k = 0; k < n; ++k) {
                norms.push_back(norm(values.subspan((g * n_tokens + k) * d, d)));
            }
            const std::vector<double> div = scaled(keys_of_head.score, mean, 1e-8), vn = scaled(norms, mean, 0);
            const double r = keys_of_head.redundancy;
            for (size_t k = 0; k < n; ++k) {
                attention[k] = (1 - r) * (attention[k] + vn[k]) + r * div[k];
            }
            redundancy.push_back(r);
        }
        return {.score = with_protected(prompt, scores, window_, /*first=*/false), .stats = {{"r", redundancy}}};
    }

  private:
    struct Diversity {
        std::vector<double> score;  ///< [n], minus the product of unit key and mean unit key
        double redundancy = 0;      ///< mean cosine of two different keys, in [0, 1]
    };

    static Diversity diversity(std::span<const float> keys, size_t n_tokens, size_t n, size_t d) {
        std::vector<double> unit(n_tokens * d), mean(d, 0.0);
        for (size_t k = 0; k < n_tokens; ++k) {
            const double length = std::max(norm(keys.subspan(k * d, d)), 1e-12);
            for (size_t i = 0; i < d; ++i) {
                unit[k * d + i] = static_cast<double>(keys[k * d + i]) / length;
                mean[i] += unit[k * d + i];
            }
        }
        Diversity out;
        double squares = 0;
        for (double & x : mean) {
            x /= static_cast<double>(n_tokens);
            squares += x * x;
        }
        for (size_t k = 0; k < n; ++k) {
            double product = 0;
            for (size_t i = 0; i < d; ++i) {
                product += unit[k * d + i] * mean[i];
            }
            out.score.push_back(-product);
        }
        const auto t = static_cast<double>(n_tokens);  // at least 2: the prompt is longer than the window
        out.redundancy = std::clamp((t * squares - 1) / (t - 1), 0.0, 1.0);
        return out;
    }

    int32_t window_, kernel_;
};

}  // namespace

MethodFile mixkv_file() {
    return {
        .method = MethodRow{.name = "mixkv",
                            .paper = "arXiv 2510.20707",
                            .summary = "Mixes SnapKV's attention with value norms and key diversity, by the "
                                       "redundancy of each KV head.",
                            .scorer = "mixkv",
                            .allocator = "uniform"},
        .scorer = ScorerPart{.name = "mixkv",
                             .summary = "Attention, value norm and key diversity, mixed by a head's redundancy; the "
                                        "window stays.",
                             .per_head = true,
                             .mass = true,
                             .params = {window_param(32), kernel_param(5)},
                             .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                 return std::make_unique<MixScorer>(p.integer("window"), p.integer("kernel"));
                             }}};
}

}  // namespace kvsieve
