// SPDX-License-Identifier: MIT
// A method that writes down what it is shown.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "gguf/model_writer.h"
#include "kvsieve/error.h"
#include "kvsieve/policy.h"

namespace kvsieve::test {

/// Copies everything that it may look at, and keeps everything.
class Recorder final : public Method {
  public:
    struct Seen {
        std::vector<float> importance, colsum, keys, values, rows, query_mean, query_cov, probe_mean, probe_square,
            output_norm;
        RopeShape rope;
        std::vector<int32_t> row_positions;
    };
    explicit Recorder(Traits traits) : traits_(traits) {}
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape &) const override {}
    [[nodiscard]] LayerScore score(const PromptShape & shape, int32_t il, const LayerObservation & obs) const override {
        seen.resize(std::max(seen.size(), static_cast<size_t>(il) + 1));
        Seen & s = seen[static_cast<size_t>(il)];
        s.importance.assign(obs.importance.begin(), obs.importance.end());
        s.colsum.assign(obs.colsum.begin(), obs.colsum.end());
        s.keys.assign(obs.keys.begin(), obs.keys.end());
        s.values.assign(obs.values.begin(), obs.values.end());
        s.query_mean.assign(obs.query_mean.begin(), obs.query_mean.end());
        s.query_cov.assign(obs.query_cov.begin(), obs.query_cov.end());
        s.probe_mean.assign(obs.probe_mean.begin(), obs.probe_mean.end());
        s.probe_square.assign(obs.probe_square.begin(), obs.probe_square.end());
        s.output_norm.assign(obs.output_norm.begin(), obs.output_norm.end());
        s.rope = shape.rope;
        s.row_positions.assign(obs.row_positions.begin(), obs.row_positions.end());
        if (!s.row_positions.empty()) {
            obs.rows(s.row_positions, s.rows);
            std::vector<float> none;
            const std::vector<int32_t> unknown{s.row_positions.front() - 1};
            EXPECT_THROW(obs.rows(unknown, none), Error);
            // the bits of a row do not depend on what is asked together with it
            const std::vector<int32_t> alone{s.row_positions.back(), s.row_positions[s.row_positions.size() / 2]};
            std::vector<float> again;
            obs.rows(alone, again);
            const size_t n = s.row_positions.size(), n_tokens = again.size() / 2 / static_cast<size_t>(shape.n_head);
            for (size_t h = 0; h < static_cast<size_t>(shape.n_head); ++h) {
                const auto all = s.rows.begin() + static_cast<int64_t>(h * n * n_tokens);
                const auto row = again.begin() + static_cast<int64_t>(h * 2 * n_tokens);
                const auto width = static_cast<int64_t>(n_tokens);
                EXPECT_TRUE(std::equal(row, row + width, all + static_cast<int64_t>(n - 1) * width));
                EXPECT_TRUE(std::equal(row + width, row + 2 * width, all + static_cast<int64_t>(n / 2) * width));
            }
        }
        return {};
    }
    [[nodiscard]] LayerPlan plan_layer(const PromptShape & shape, int32_t, const LayerScore &) const override {
        LayerPlan all{{std::vector<int32_t>(static_cast<size_t>(shape.n_tokens))}};
        std::iota(all.kept[0].begin(), all.kept[0].end(), 0);
        return all;
    }
    [[nodiscard]] Plan plan(const PromptShape & shape, std::span<const LayerScore> scores) const override {
        Plan out;
        for (const LayerScore & score : scores) {
            out.layers.push_back(plan_layer(shape, 0, score));
        }
        return out;
    }
    mutable std::vector<Seen> seen;

  private:
    Traits traits_;
};

inline ModelShape observed_shape() {
    ModelShape shape;
    shape.n_layer = 2;
    shape.n_embd = 48;
    shape.n_head = 4;
    shape.n_head_kv = 2;
    shape.head_dim = 16;
    shape.n_ff = 64;
    shape.n_vocab = 270;
    shape.n_ctx = 2048;
    shape.type = GGML_TYPE_F32;
    return shape;
}

}  // namespace kvsieve::test
