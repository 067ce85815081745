// SPDX-License-Identifier: MIT
// Attention over a cache whose layers and heads hold different rows, against masked full attention in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "graph/naive_llama.h"
#include "graph/tiny_run.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kPrompt = 90;

/// Keeps what the test says; whether layers are compacted at once is the test's choice too.
class FixedPlan final : public Method {
  public:
    FixedPlan(Plan plan, bool layerwise) : plan_(std::move(plan)) {
        traits_.layerwise = layerwise;
        traits_.per_head = true;
    }
    [[nodiscard]] const Traits & traits() const override { return traits_; }
    void check(const PromptShape &) const override {}
    [[nodiscard]] LayerScore score(const PromptShape &, int32_t, const LayerObservation &) const override { return {}; }
    [[nodiscard]] LayerPlan plan_layer(const PromptShape &, int32_t il, const LayerScore &) const override {
        return plan_.layers[static_cast<size_t>(il)];
    }
    [[nodiscard]] Plan plan(const PromptShape &, std::span<const LayerScore>) const override { return plan_; }

  private:
    Plan plan_;
    Traits traits_;
};

ModelShape ragged_shape() {
    ModelShape shape = narrow_shape(2, 2048);
    shape.n_head = 6;
    shape.n_head_kv = 3;
    return shape;
}

/// Between 3 and 60 rows per head; `per_head` = false: one list per layer.
Plan ragged_plan(const ModelShape & shape, bool per_head, uint32_t seed) {
    std::mt19937 random(seed);
    Plan plan;
    for (int32_t il = 0; il < shape.n_layer; ++il) {
        LayerPlan layer;
        for (int32_t g = 0; g < (per_head ? shape.n_head_kv : 1); ++g) {
            std::vector<int32_t> all(kPrompt);
            std::iota(all.begin(), all.end(), 0);
            std::shuffle(all.begin(), all.end(), random);
            all.resize(3 + random() % 58);
            std::sort(all.begin(), all.end());
            layer.kept.push_back(all);
        }
        plan.layers.push_back(layer);
    }
    return plan;
}

struct Case {
    std::string name;
    KvType type;
    bool rotate;
    double tolerance;  // of logits with a standard deviation of about 1
};

const Case kCases[] = {
    {"f16", KvType::f16, true, 0.003},   {"q8_0_rotated", KvType::q8_0, true, 0.02},
    {"q8_0", KvType::q8_0, false, 0.02}, {"q4_0_rotated", KvType::q4_0, true, 0.15},
    {"q4_0", KvType::q4_0, false, 0.18},
};

class Ragged : public testing::TestWithParam<std::tuple<Case, bool, bool>> {};

TEST_P(Ragged, EqualsMaskedFullAttention) {
    const auto & [kind, per_head, kernel] = GetParam();
    const ModelShape shape = ragged_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kPrompt + 30, 6, shape.n_vocab);
    const std::span<const int32_t> all(tokens);
    const Plan plan = ragged_plan(shape, per_head, 7);

    const NaiveLlama model(file.path(), shape);
    const auto is_kept = [&](int32_t il, int32_t g, int32_t q, int32_t k) {
        const std::vector<int32_t> & kept = plan.layers[static_cast<size_t>(il)].of_head(g);
        return q < kPrompt || k >= kPrompt || std::binary_search(kept.begin(), kept.end(), k);
    };
    const NaiveLlama::Result masked = model.run(tokens, is_kept);
    const NaiveLlama::Result unmasked = model.run(tokens);

    for (const bool layerwise : {false, true}) {
        TinyRun run(file.path(), kind.type, kind.rotate);
        run.kernel = kernel;
        run.prefill(all.first(kPrompt), FixedPlan(plan, layerwise), true);
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            for (int32_t g = 0; g < shape.n_head_kv; ++g) {
                const auto positions = run.cache.positions(il, g);
                EXPECT_EQ(std::vector<int32_t>(positions.begin(), positions.end()),
                          plan.layers[static_cast<size_t>(il)].of_head(g));
            }
        }
        double worst = 0, other = 0;
        const auto hold = [&](const std::vector<float> & logits, size_t position) {
            for (size_t i = 0; i < logits.size(); ++i) {
                worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - masked.logits[position][i]));
                other = std::max(other, std::abs(static_cast<double>(logits[i]) - unmasked.logits[position][i]));
            }
        };
        for (size_t i = 0; i < 6; ++i) {
            hold(run.extend(all.subspan(kPrompt + i, 1)), kPrompt + i);
        }
        hold(run.extend(all.subspan(kPrompt + 6, 17)), kPrompt + 22);
        for (size_t i = 23; i < 30; ++i) {
            hold(run.extend(all.subspan(kPrompt + i, 1)), kPrompt + i);
        }
        RecordProperty("worst", std::to_string(worst));
        EXPECT_LE(worst, kind.tolerance);
        EXPECT_GT(other, 2 * kind.tolerance) << "the test could not tell what is kept";
    }
}

INSTANTIATE_TEST_SUITE_P(Types, Ragged, testing::Combine(testing::ValuesIn(kCases), testing::Bool(), testing::Bool()),
                         [](const auto & variant) {
                             return std::get<0>(variant.param).name +
                                    (std::get<1>(variant.param) ? "_per_head" : "_per_layer") +
                                    (std::get<2>(variant.param) ? "_kernel" : "_ggml");
                         });

class Extension : public testing::TestWithParam<size_t> {};

TEST_P(Extension, OfSeveralTokensEqualsTokenByToken) {
    const size_t n = GetParam();
    const ModelShape shape = ragged_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kPrompt + n + 3, 8, shape.n_vocab);
    const std::span<const int32_t> all(tokens);
    for (const KvType type : {KvType::f16, KvType::q8_0}) {
        const FixedPlan method(ragged_plan(shape, true, 9), false);
        TinyRun at_once(file.path(), type), one_by_one(file.path(), type);
        at_once.prefill(all.first(kPrompt), method, true);
        one_by_one.prefill(all.first(kPrompt), method, true);

        std::vector<float> a = at_once.extend(all.subspan(kPrompt, n));
        std::vector<float> b;
        for (size_t i = 0; i < n; ++i) {
            b = one_by_one.extend(all.subspan(kPrompt + i, 1));
        }
        const double tolerance = type == KvType::f16 ? 0.01 : 0.05;
        EXPECT_LE(max_difference(a, b), tolerance);
        for (size_t i = n; i < n + 3; ++i) {
            a = at_once.extend(all.subspan(kPrompt + i, 1));
            b = one_by_one.extend(all.subspan(kPrompt + i, 1));
            EXPECT_LE(max_difference(a, b), tolerance);
        }
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            for (int32_t g = 0; g < shape.n_head_kv; ++g) {
                const auto p = at_once.cache.positions(il, g);
                const auto q = one_by_one.cache.positions(il, g);
                EXPECT_TRUE(std::equal(p.begin(), p.end(), q.begin(), q.end()));
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Lengths, Extension, testing::Values(1, 2, 17, 600));

}  // namespace
}  // namespace kvsieve::test
