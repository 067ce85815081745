// SPDX-License-Identifier: MIT
// Tokens that leave the prefill, and rows that are merged, against masked or changed attention in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "graph/naive_llama.h"
#include "graph/recorder.h"
#include "graph/tiny_run.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

/// From layer K on only `kept` stays; what layer K-1 shows is written down.
class Pruner final : public Method {
  public:
    Pruner(int32_t prune_layer, std::vector<int32_t> kept) : kept_(std::move(kept)) {
        traits_.prune_layer = prune_layer;
        traits_.rows = RowsWanted::last_window;
        traits_.window = 1;
        traits_.importance = true;
    }
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape &) const override {}
    [[nodiscard]] LayerScore score(const PromptShape &, int32_t il, const LayerObservation & obs) const override {
        scored.push_back(il);
        EXPECT_FALSE(obs.importance.empty());
        obs.rows(obs.row_positions, row);
        return {.score = {1.0}};
    }
    [[nodiscard]] LayerPlan plan_layer(const PromptShape & shape, int32_t il, const LayerScore & score) const override {
        if (il >= traits_.prune_layer) {
            EXPECT_EQ(score.score.size(), 1U) << "not the score of the layer before the pruning";
            return {{kept_}};
        }
        LayerPlan all{{std::vector<int32_t>(static_cast<size_t>(shape.n_tokens))}};
        std::iota(all.kept[0].begin(), all.kept[0].end(), 0);
        return all;
    }
    [[nodiscard]] Plan plan(const PromptShape & shape, std::span<const LayerScore> scores) const override {
        Plan out;
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            const int32_t from = il < traits_.prune_layer ? il : traits_.prune_layer - 1;
            out.layers.push_back(plan_layer(shape, il, scores[static_cast<size_t>(from)]));
        }
        return out;
    }
    mutable std::vector<int32_t> scored;
    mutable std::vector<float> row;

  private:
    std::vector<int32_t> kept_;
    Traits traits_;
};

ModelShape deep_shape() {
    ModelShape shape = observed_shape();
    shape.n_layer = 4;
    return shape;
}

class Prune : public testing::TestWithParam<std::tuple<int32_t, bool>> {};

TEST_P(Prune, EqualsTokensThatNobodyAttendsTo) {
    const auto & [prune_layer, last_stays] = GetParam();
    constexpr int32_t kPrompt = 600;  // two chunks before the pruning, one after it
    const ModelShape shape = deep_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kPrompt + 4, 11, shape.n_vocab);
    const std::span<const int32_t> all(tokens);
    std::mt19937 random(12);
    std::vector<int32_t> kept;
    for (int32_t p = 0; p < kPrompt; ++p) {
        if (p + 1 == kPrompt ? last_stays : random() % 3 == 0) {
            kept.push_back(p);
        }
    }
    const auto is_kept = [&](int32_t p) { return p >= kPrompt || std::binary_search(kept.begin(), kept.end(), p); };
    const NaiveLlama model(file.path(), shape);
    const NaiveLlama::Result masked = model.run(
        tokens, [&](int32_t il, int32_t, int32_t q, int32_t k) { return il < prune_layer || is_kept(k) || q == k; });
    const NaiveLlama::Result unmasked = model.run(tokens);

    const Pruner method(prune_layer, kept);
    TinyRun run(file.path());
    const std::vector<float> first = run.prefill(all.first(kPrompt), method, true);
    const bool prunes = prune_layer < shape.n_layer;
    EXPECT_EQ(method.scored, std::vector<int32_t>{prune_layer - 1}) << "only one layer is observed";
    for (size_t k = 0; k < kPrompt; ++k) {
        ASSERT_NEAR(method.row[k], masked.at(static_cast<size_t>(prune_layer) - 1, 0, kPrompt - 1, k), 1e-4);
    }
    uint64_t rows = 0;
    for (int32_t il = 0; il < shape.n_layer; ++il) {
        for (int32_t g = 0; g < shape.n_head_kv; ++g) {
            const auto held = run.cache.positions(il, g);
            if (il >= prune_layer) {
                EXPECT_TRUE(std::equal(held.begin(), held.end(), kept.begin(), kept.end())) << il;
            } else {
                EXPECT_EQ(held.size(), static_cast<size_t>(kPrompt));
            }
            EXPECT_EQ(std::vector<int32_t>(held.begin(), held.end()),
                      run.plan.layers[static_cast<size_t>(il)].of_head(g));
            rows += held.size();
        }
    }
    EXPECT_EQ(run.cache.usage(kPrompt).rows, rows);
    double worst = 0, other = 0;
    const auto hold = [&](const std::vector<float> & logits, size_t position) {
        for (size_t i = 0; i < logits.size(); ++i) {
            worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - masked.logits[position][i]));
            other = std::max(other, std::abs(static_cast<double>(logits[i]) - unmasked.logits[position][i]));
        }
    };
    hold(first, kPrompt - 1);
    for (size_t i = 0; i < 4; ++i) {
        hold(run.extend(all.subspan(kPrompt + i, 1)), kPrompt + i);
    }
    EXPECT_LE(worst, 0.004);
    if (prunes) {
        EXPECT_GT(other, 0.02) << "the test could not tell what is kept";
    }
}

INSTANTIATE_TEST_SUITE_P(Layers, Prune, testing::Combine(testing::Values(1, 2, 3, 4), testing::Bool()));

/// Merges every dropped row into the kept one before it.
class Merger final : public Method {
  public:
    explicit Merger(bool layerwise) { traits_.layerwise = layerwise; }
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape &) const override {}
    [[nodiscard]] LayerScore score(const PromptShape &, int32_t, const LayerObservation &) const override { return {}; }
    [[nodiscard]] LayerPlan plan_layer(const PromptShape & shape, int32_t il, const LayerScore &) const override {
        LayerPlan out{{{}}};
        for (int32_t p = 0; p < shape.n_tokens; ++p) {
            if (p % (il + 2) == 0) {
                out.kept[0].push_back(p);
            } else {
                out.merged.push_back({p, out.kept[0].back()});
            }
        }
        return out;
    }
    [[nodiscard]] Plan plan(const PromptShape & shape, std::span<const LayerScore> scores) const override {
        Plan out;
        for (const LayerScore & score : scores) {
            out.layers.push_back(plan_layer(shape, static_cast<int32_t>(out.layers.size()), score));
        }
        return out;
    }

  private:
    Traits traits_;
};

class MergedRows : public testing::TestWithParam<KvType> {};

TEST_P(MergedRows, AreTheMeansOfThePrefillsRows) {
    constexpr int32_t kPrompt = 50;
    ModelShape shape = observed_shape();
    shape.head_dim = 64;  // rotated where quantised
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kPrompt, 13, shape.n_vocab);
    const NaiveLlama::Result naive = NaiveLlama(file.path(), shape).run(tokens);
    for (const bool layerwise : {true, false}) {
        TinyRun run(file.path(), GetParam());
        run.prefill(tokens, Merger(layerwise), true);
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            for (int32_t g = 0; g < shape.n_head_kv; ++g) {
                const LayerPlan & plan = run.plan.layers[static_cast<size_t>(il)];
                std::vector<int32_t> slots(plan.kept[0].size());
                std::iota(slots.begin(), slots.end(), 0);
                std::vector<float> keys(slots.size() * 64), values(slots.size() * 64);
                run.cache.read_rows_f32(il, g, slots, keys, values);
                double error = 0, size = 0;
                for (size_t slot = 0; slot < slots.size(); ++slot) {
                    const int32_t from = plan.kept[0][slot];
                    const int32_t to = std::min(from + il + 2, kPrompt);
                    for (size_t c = 0; c < 64; ++c) {
                        double key = 0, value = 0;
                        for (int32_t p = from; p < to; ++p) {
                            const size_t at = static_cast<size_t>(g) * 64 + c;
                            key += naive.keys[static_cast<size_t>(il)][static_cast<size_t>(p)][at] / (to - from);
                            value += naive.values[static_cast<size_t>(il)][static_cast<size_t>(p)][at] / (to - from);
                        }
                        error += std::pow(static_cast<double>(keys[slot * 64 + c]) - key, 2) +
                                 std::pow(static_cast<double>(values[slot * 64 + c]) - value, 2);
                        size += key * key + value * value;
                    }
                }
                const double bound = GetParam() == KvType::f16 ? 0.002 : GetParam() == KvType::q8_0 ? 0.01 : 0.14;
                EXPECT_LE(std::sqrt(error / size), bound) << il << " " << g << " " << layerwise;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Types, MergedRows, testing::Values(KvType::f16, KvType::q8_0, KvType::q4_0),
                         [](const auto & variant) { return std::string(kv_type_name(variant.param)); });

}  // namespace
}  // namespace kvsieve::test
