// SPDX-License-Identifier: MIT
// VL-Cache (arXiv 2410.23317): layers share the cache by how dense the attention of the text behind the image is; rows
// are ranked by that attention, and a recent window stays.
#include <algorithm>

#include "policy/budget.h"
#include "policy/parts.h"
#include "policy/prompt.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

constexpr const char * kDensity = "density";

/// Attention of the text behind the image: sums over its queries per query head, and how many entries reach the
/// threshold share of their row's largest.
struct TextAttention {
    std::vector<double> sums;  ///< [H, T]
    double density = 0;
};

TextAttention text_attention(const PromptShape & prompt, int32_t il, const LayerObservation & obs, double threshold) {
    const std::vector<int32_t> queries = positions_after_visual(prompt);
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
    TextAttention out{.sums = std::vector<double>(n_head * n_tokens, 0.0)};
    int64_t n_dense = 0, n_entry = 0;
    size_t n_row = 0;
    for_each_row(prompt, il, obs, queries, [&](size_t h, std::span<const float> row) {
        const auto n_seen = static_cast<size_t>(queries[n_row++ / n_head]) + 1;  // keys up to the query's own
        double * const sum = out.sums.data() + h * n_tokens;
        double most = 0;
        for (size_t k = 0; k < n_seen; ++k) {
            most = std::max(most, static_cast<double>(row[k]));
        }
        const double limit = threshold * most;
        for (size_t k = 0; k < n_seen; ++k) {
            n_dense += static_cast<double>(row[k]) >= limit ? 1 : 0;
        }
        for (size_t k = 0; k < n_tokens; ++k) {
            sum[k] += static_cast<double>(row[k]);
        }
        n_entry += static_cast<int64_t>(n_seen);  // over all heads: H times the sum of (q + 1)
    });
    out.density = static_cast<double>(n_dense) / static_cast<double>(n_entry);
    return out;
}

class VlScorer final : public Scorer {
  public:
    explicit VlScorer(double threshold) : threshold_(threshold) {}

    void observe(Traits & traits) const override {
        observe_text_after_visual(traits);
        traits.modality = true;
    }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const TextAttention attention = text_attention(prompt, il, obs, threshold_);
        return {.score = group_mean(prompt, attention.sums), .stats = {{kDensity, attention.density}}};
    }

  private:
    double threshold_;
};

class VlAllocator final : public Allocator {
  public:
    VlAllocator(double keep, double threshold, double recent) : keep_(keep), threshold_(threshold), recent_(recent) {}

    void observe(Traits & traits) const override { observe_text_after_visual(traits); }

    void add_stats(const PromptShape & prompt, const Field & /*field*/, int32_t il, const LayerObservation & obs,
                   LayerScore & score) const override {
        if (!score.stats.contains(kDensity)) {
            score.stats[kDensity] = text_attention(prompt, il, obs, threshold_).density;
        }
    }

    Allocation allocate(const PromptShape & /*prompt*/, const Field & field,
                        std::span<const LayerScore> scores) const override {
        Allocation out;
        std::vector<double> density = layer_stats(scores, kDensity);
        std::vector<double> retain(scores.size(), 1.0);  // of keep 1, whatever the densities
        if (keep_ < 1) {
            retain = clipped_shares(density, keep_, 0.01);
        }
        for (const double share : retain) {
            const int64_t n = std::max<int64_t>(1, rows_of_keep(field.n_rows, share));
            const int64_t recent = std::max<int64_t>(1, rows_of_keep(n, recent_));
            out.layers.push_back({.n_kept = {n}, .n_recent = std::min(n, recent)});
        }
        out.extra["density"] = std::move(density);
        out.extra["layer_retain"] = std::move(retain);
        return out;
    }

  private:
    double keep_, threshold_, recent_;
};

ParamSpec threshold_param() {
    return {.name = "threshold",
            .help = "share of a row's largest attention from which an entry counts as dense",
            .def = 0.01,
            .min = 0,
            .max = 1};
}

}  // namespace

MethodFile vl_cache_file() {
    return {.method = MethodRow{.name = "vl_cache",
                                .paper = "arXiv 2410.23317",
                                .summary = "Ranks rows by the attention of the text behind the image, with layer "
                                           "budgets by how dense that attention is.",
                                .scorer = "vl_cache",
                                .allocator = "vl_cache"},
            .scorer = ScorerPart{.name = "vl_cache",
                                 .summary = "Attention of the text behind the image.",
                                 .per_head = true,
                                 .mass = true,
                                 .params = {threshold_param()},
                                 .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                                     return std::make_unique<VlScorer>(p.number("threshold"));
                                 }},
            .allocator = AllocatorPart{
                .name = "vl_cache",
                .summary = "Budgets by how dense the attention of the text behind the image is; a recent "
                           "window stays.",
                .needs_visual = true,
                .params = {threshold_param(),
                           {.name = "recent",
                            .help = "share of a layer's budget that goes to its last rows",
                            .def = 0.1,
                            .min = 0,
                            .max = 1}},
                .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                    return std::make_unique<VlAllocator>(p.keep(), p.number("threshold"), p.number("recent"));
                }}};
}

}  // namespace kvsieve
