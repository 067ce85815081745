// SPDX-License-Identifier: MIT
// Observations for several methods at once, and what one of them asked for out of these.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve {

/// What `a` and `b` look at. Rows behind the image beside a window: whichever are more.
[[nodiscard]] inline Traits joined_observations(const Traits & a, const Traits & b) {
    Traits all = a;
    all.importance |= b.importance;
    all.colsum |= b.colsum;
    all.keys |= b.keys;
    all.values |= b.values;
    all.modality |= b.modality;
    if (b.query_stats) {
        all.query_stats = true;
        all.n_sink = b.n_sink;
    }
    all.probes |= b.probes;
    all.n_queries = std::max(all.n_queries, b.n_queries);
    if (b.rows == RowsWanted::text_after_visual || all.rows == RowsWanted::none) {
        all.rows = b.rows;
    }
    all.window = std::max(all.window, b.rows == RowsWanted::last_window ? b.window : 0);
    return all;
}

/// The same for a method that watches over a prefill and keeps everything. Which rows are behind the image is known
/// with the prompt: all may be asked for then (only those that are will be computed).
[[nodiscard]] inline Traits watching(const Traits & observed) {
    Traits traits = observed;
    traits.layerwise = true;
    traits.prune_layer = 0;
    if (observed.rows == RowsWanted::text_after_visual) {
        traits.rows = RowsWanted::last_window;
        traits.window = std::numeric_limits<int32_t>::max();
    }
    return traits;
}

/// The plan of such a method.
[[nodiscard]] inline LayerPlan whole_layer(int32_t n_tokens) {
    LayerPlan all{{std::vector<int32_t>(static_cast<size_t>(n_tokens))}};
    std::iota(all.kept[0].begin(), all.kept[0].end(), 0);
    return all;
}
[[nodiscard]] inline Plan whole_plan(const PromptShape & prompt) {
    Plan all;
    all.keeps_everything = true;
    all.layers.assign(static_cast<size_t>(prompt.n_layer), whole_layer(prompt.n_tokens));
    return all;
}

/// Attention rows are the last `n_rows` of those that are there; what `traits` do not ask for is hidden. References
/// must outlive this.
class Narrowed final : public LayerObservation {
  public:
    Narrowed(const LayerObservation & from, const Traits & traits, int32_t n_rows) : from_(from) {
        const auto shown = [](bool asked, std::span<const float> all) {
            return asked ? all : std::span<const float>();
        };
        importance = shown(traits.importance, from.importance);
        colsum = shown(traits.colsum, from.colsum);
        keys = shown(traits.keys, from.keys);
        values = shown(traits.values, from.values);
        query_mean = shown(traits.query_stats, from.query_mean);
        query_cov = shown(traits.query_stats, from.query_cov);
        probe_mean = shown(traits.probes, from.probe_mean);
        probe_square = shown(traits.probes, from.probe_square);
        output_norm = shown(traits.probes, from.output_norm);
        row_positions = from.row_positions.last(static_cast<size_t>(n_rows));
    }
    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        from_.rows(positions, out);
    }

  private:
    const LayerObservation & from_;
};

/// Keeps everything and looks at what its traits ask for. Belongs to one session.
class Watcher : public Method {
  public:
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape & /*prompt*/) const override {}
    [[nodiscard]] LayerPlan plan_layer(const PromptShape & prompt, int32_t /*il*/,
                                       const LayerScore & /*score*/) const override {
        return whole_layer(prompt.n_tokens);
    }
    [[nodiscard]] Plan plan(const PromptShape & prompt, std::span<const LayerScore> /*scores*/) const override {
        return whole_plan(prompt);
    }

  protected:
    Traits traits_;
};

}  // namespace kvsieve
