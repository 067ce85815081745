// SPDX-License-Identifier: MIT
#include "engine/observe.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "io/observation_writer.h"

namespace kvsieve {
namespace {

/// An observation with the last `n_rows` of its attention rows.
class Narrowed final : public LayerObservation {
  public:
    Narrowed(const LayerObservation & from, int32_t n_rows) : LayerObservation(from), from_(from) {
        row_positions = from.row_positions.last(static_cast<size_t>(n_rows));
    }
    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        from_.rows(positions, out);
    }

  private:
    const LayerObservation & from_;
};

/// Keeps everything and writes what it is shown, layer by layer.
class Recorder final : public Method {
  public:
    Recorder(const Traits & wanted, std::filesystem::path path)
        : wanted_(wanted), traits_(wanted), path_(std::move(path)) {
        traits_.layerwise = true;
        traits_.prune_layer = 0;
        if (wanted.rows != RowsWanted::none) {  // which ones is known with the prompt
            traits_.rows = RowsWanted::last_window;
            traits_.window = std::numeric_limits<int32_t>::max();
        }
    }
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape &) const override {}
    [[nodiscard]] LayerScore score(const PromptShape & prompt, int32_t il,
                                   const LayerObservation & obs) const override {
        if (!writer_) {
            writer_ = std::make_unique<ObservationWriter>(path_, prompt, wanted_);
        }
        writer_->add(il, Narrowed(obs, n_rows(prompt)));
        return {};
    }
    [[nodiscard]] LayerPlan plan_layer(const PromptShape & prompt, int32_t, const LayerScore &) const override {
        LayerPlan all{{std::vector<int32_t>(static_cast<size_t>(prompt.n_tokens))}};
        std::iota(all.kept[0].begin(), all.kept[0].end(), 0);
        return all;
    }
    [[nodiscard]] Plan plan(const PromptShape & prompt, std::span<const LayerScore> scores) const override {
        Plan out;
        out.keeps_everything = true;
        out.layers.assign(scores.size(), plan_layer(prompt, 0, {}));
        return out;
    }
    void finish() const { writer_->finish(); }

  private:
    [[nodiscard]] int32_t n_rows(const PromptShape & prompt) const {
        int32_t n = wanted_.rows == RowsWanted::none ? 0 : wanted_.window;
        if (wanted_.rows == RowsWanted::text_after_visual) {
            const auto last = std::find(prompt.visual_mask.rbegin(), prompt.visual_mask.rend(), uint8_t{1});
            n = std::max(n, prompt.visual_mask.empty() ? prompt.n_tokens
                                                       : static_cast<int32_t>(last - prompt.visual_mask.rbegin()));
        }
        return std::min(n, prompt.n_tokens);
    }

    Traits wanted_, traits_;
    std::filesystem::path path_;
    mutable std::unique_ptr<ObservationWriter> writer_;  // of one prefill; a recorder belongs to one session
};

}  // namespace

Traits all_observations() {
    Traits all;
    for (const MethodInfo & info : methods()) {
        const Traits & t = info.traits;
        all.importance |= t.importance;
        all.colsum |= t.colsum;
        all.keys |= t.keys;
        all.values |= t.values;
        all.modality |= t.modality;
        if (t.query_stats) {
            all.query_stats = true;
            all.n_sink = t.n_sink;
        }
        if (t.rows == RowsWanted::text_after_visual || (all.rows == RowsWanted::none && t.rows != RowsWanted::none)) {
            all.rows = t.rows;
        }
        all.window = std::max(all.window, t.rows == RowsWanted::last_window ? t.window : 0);
    }
    return all;
}

PromptShape write_observations(std::shared_ptr<const Model> model, const SessionOptions & options, const Turn & turn,
                               const Traits & wanted, const std::filesystem::path & path, const Callbacks & callbacks) {
    const auto recorder = std::make_shared<Recorder>(wanted, path);
    Session session(std::move(model), options, recorder);
    static_cast<void>(session.feed(turn, true, callbacks));
    recorder->finish();
    return session.prompt_shape();
}

}  // namespace kvsieve
