// SPDX-License-Identifier: MIT
#include "engine/observe.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include "io/npz.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

/// Keeps everything and writes down what it is shown, layer behind layer.
class Recorder final : public Method {
  public:
    struct Arrays {
        std::vector<float> importance, colsum, rows, keys, values, query_mean, query_cov;
    };

    explicit Recorder(const Traits & wanted) : traits_(wanted), rows_(wanted.rows), window_(wanted.window) {
        traits_.layerwise = true;
        traits_.prune_layer = 0;
        if (rows_ != RowsWanted::none) {  // which ones is known with the prompt
            traits_.rows = RowsWanted::last_window;
            traits_.window = std::numeric_limits<int32_t>::max();
        }
    }
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape & prompt) const override {
        const auto behind = std::find(prompt.visual_mask.rbegin(), prompt.visual_mask.rend(), uint8_t{1});
        const auto n_text = static_cast<int32_t>(behind - prompt.visual_mask.rbegin());
        n_rows_ = rows_ == RowsWanted::none ? 0 : window_;
        if (rows_ == RowsWanted::text_after_visual) {
            n_rows_ = std::max(n_rows_, prompt.visual_mask.empty() ? prompt.n_tokens : n_text);
        }
        n_rows_ = std::min(n_rows_, prompt.n_tokens);
    }
    [[nodiscard]] LayerScore score(const PromptShape &, int32_t, const LayerObservation & obs) const override {
        const auto add = [](std::vector<float> & to, std::span<const float> from) {
            to.insert(to.end(), from.begin(), from.end());
        };
        add(seen.importance, obs.importance);
        add(seen.colsum, obs.colsum);
        add(seen.keys, obs.keys);
        add(seen.values, obs.values);
        add(seen.query_mean, obs.query_mean);
        add(seen.query_cov, obs.query_cov);
        if (n_rows_ > 0) {
            std::vector<float> rows;
            obs.rows(obs.row_positions.last(static_cast<size_t>(n_rows_)), rows);
            add(seen.rows, rows);
        }
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
    [[nodiscard]] int32_t n_rows() const { return n_rows_; }
    mutable Arrays seen;  // of one prefill; a recorder belongs to one session

  private:
    Traits traits_;
    RowsWanted rows_;
    int32_t window_;
    mutable int32_t n_rows_ = 0;
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
    const auto recorder = std::make_shared<Recorder>(wanted);
    Session session(std::move(model), options, recorder);
    static_cast<void>(session.feed(turn, true, callbacks));
    const PromptShape & prompt = session.prompt_shape();

    const auto n_layer = static_cast<uint64_t>(prompt.n_layer), n_head = static_cast<uint64_t>(prompt.n_head),
               n_head_kv = static_cast<uint64_t>(prompt.n_head_kv), d = static_cast<uint64_t>(prompt.head_dim),
               n_tokens = static_cast<uint64_t>(prompt.n_tokens), n_rows = static_cast<uint64_t>(recorder->n_rows());
    const Recorder::Arrays & seen = recorder->seen;
    std::vector<NpzArray> arrays;
    const auto add = [&](const char * name, NpyType type, std::vector<uint64_t> shape, const auto & values) {
        if (!values.empty()) {
            arrays.push_back({name, type, std::move(shape), std::as_bytes(std::span(values))});
        }
    };
    add("importance", NpyType::f4, {n_layer, n_tokens}, seen.importance);
    add("colsum", NpyType::f4, {n_layer, n_head, n_tokens}, seen.colsum);
    add("rows", NpyType::f4, {n_layer, n_head, n_rows, n_tokens}, seen.rows);
    add("keys", NpyType::f4, {n_layer, n_head_kv, n_tokens, d}, seen.keys);
    add("values", NpyType::f4, {n_layer, n_head_kv, n_tokens, d}, seen.values);
    add("query_mean", NpyType::f4, {n_layer, n_head, d}, seen.query_mean);
    add("query_cov", NpyType::f4, {n_layer, n_head, d, d}, seen.query_cov);
    add("rope_freqs", NpyType::f4, {prompt.rope.freqs.size()}, prompt.rope.freqs);
    add("visual_mask", NpyType::u1, {prompt.visual_mask.size()}, prompt.visual_mask);
    const std::vector<int32_t> layout(prompt.rope.freqs.empty() ? 0 : 1, prompt.rope.interleaved ? 1 : 0);
    add("rope_layout", NpyType::i4, {}, layout);
    const std::vector<int32_t> next{prompt.next_position < 0 ? prompt.n_tokens : prompt.next_position};
    add("next_position", NpyType::i4, {}, next);
    const std::vector<int32_t> heads{prompt.n_head_kv};
    add("n_head_kv", NpyType::i4, {}, heads);
    write_npz(path, arrays);
    return prompt;
}

}  // namespace kvsieve
