// SPDX-License-Identifier: MIT
// Special rules of the methods with an observation window: snapkv, pyramidkv, adakv, mixkv, cake, lava.
#include <gtest/gtest.h>

#include <numeric>

#include "policy/budget.h"
#include "policy/fake_observation.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::Pattern;

constexpr PromptShape kShape{.n_layer = 4, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 60};

/// Scores [G, T] of one layer: `scores` of the first tokens, 9 for a window of 2.
LayerScore with_window(const std::vector<std::vector<double>> & scores) {
    LayerScore out;
    for (const auto & head : scores) {
        out.score.insert(out.score.end(), head.begin(), head.end());
        out.score.insert(out.score.end(), 2, 9.0);
    }
    return out;
}

PromptShape small_shape(int32_t n_layer, int32_t n_head_kv, size_t n_scored) {
    return {.n_layer = n_layer,
            .n_head = n_head_kv,
            .n_head_kv = n_head_kv,
            .n_tokens = static_cast<int32_t>(n_scored) + 2};
}

TEST(WindowMethods, RefuseAPromptThatIsNotLongerThanTheWindow) {
    for (const std::string name : {"snapkv", "pyramidkv", "adakv", "mixkv", "cake", "lava"}) {
        PromptShape shape = kShape;
        shape.n_tokens = 8;
        const auto method = make_method(name, {.keep = 0.5, .params = {{"window", "8"}}});
        const std::string text = error_of([&] { method->check(shape); });
        EXPECT_NE(text.find("more than the observation window of 8"), std::string::npos) << name << text;
        shape.n_tokens = 9;
        EXPECT_NO_THROW(method->check(shape)) << name;
    }
}

TEST(WindowMethods, BudgetsBelowTheWindowKeepItsLastTokens) {
    for (const std::string name : {"snapkv", "mixkv", "cake", "lava"}) {
        const auto prompt = fake_prompt(kShape, Pattern::softmax, 4);
        const auto method = make_method(name, {.keep = 0.05, .params = {{"window", "8"}}});  // 3 of 60
        const Plan plan = method->plan(kShape, test::score_all(*method, prompt));
        for (const LayerPlan & layer : plan.layers) {
            for (const auto & kept : layer.kept) {
                EXPECT_EQ(kept, (std::vector<int32_t>{57, 58, 59})) << name;
            }
        }
    }
}

TEST(Pooling, IsDampedAtTheEdges) {
    EXPECT_EQ(average_pool(std::vector<double>{3, 6, 9, 12}, 3), (std::vector<double>{3, 6, 9, 7}));
    EXPECT_EQ(average_pool(std::vector<double>{5}, 5), std::vector<double>{1});
    EXPECT_EQ(average_pool(std::vector<double>{1, 2}, 1), (std::vector<double>{1, 2}));
}

TEST(PyramidKv, LowerLayersGetMoreAndTheMeanStays) {
    PromptShape shape = kShape;
    shape.n_tokens = 2000;
    const auto method = make_method("pyramidkv", {.keep = 0.3, .params = {{"window", "8"}, {"granularity", "layer"}}});
    const LayerScore flat{.score = std::vector<double>(2000, 1.0)};
    const Plan plan = method->plan(shape, std::vector<LayerScore>(4, flat));
    std::vector<size_t> sizes;
    for (const LayerPlan & layer : plan.layers) {
        sizes.push_back(layer.kept[0].size());
    }
    EXPECT_EQ(sizes, (std::vector<size_t>{1170, 790, 410, 30}));  // from 2c - c/20 down to c/20, c = 600
}

TEST(PyramidKv, ShortPromptsHaveEqualLayersRounded) {
    const auto method =
        make_method("pyramidkv", {.keep = 0.225, .params = {{"window", "8"}, {"granularity", "layer"}}});
    const LayerScore flat{.score = std::vector<double>(60, 1.0)};
    for (const LayerPlan & layer : method->plan(kShape, std::vector<LayerScore>(4, flat)).layers) {
        EXPECT_EQ(layer.kept[0].size(), 14U);  // 13.5, half to even
    }
}

TEST(AdaKv, TheHeadWithTheHigherScoresGetsTheRowsAndTheOtherItsSafeguard) {
    const std::vector<double> high(18, 5.0), low(18, 1.0);
    const PromptShape shape = small_shape(1, 2, 18);
    const auto sizes = [&](const std::string & safeguard) {
        const auto method = make_method("adakv", {.keep = 0.5, .params = {{"window", "2"}, {"safeguard", safeguard}}});
        const Plan plan = method->plan(shape, std::vector<LayerScore>{with_window({high, low})});
        return std::pair(plan.layers[0].kept[0].size(), plan.layers[0].kept[1].size());
    };
    EXPECT_EQ(sizes("0"), std::pair(size_t{18}, size_t{2}));  // windows first, then 16 of the high head
    EXPECT_EQ(sizes("0.5"), std::pair(size_t{15}, size_t{5}));
    EXPECT_EQ(sizes("1"), std::pair(size_t{10}, size_t{10}));
}

TEST(AdaKv, EqualScoresGoByPositionThenHead) {
    const std::vector<double> same(5, 1.0);
    const PromptShape shape = small_shape(1, 2, 5);
    const auto method = make_method("adakv", {.keep = 0.5, .params = {{"window", "2"}, {"safeguard", "0"}}});
    const Plan plan = method->plan(shape, std::vector<LayerScore>{with_window({same, same})});
    // 3 of 7 per head: 8 of 14 leave; position 0 of both heads first, position 4 stays in both.
    EXPECT_EQ(plan.layers[0].kept[0], (std::vector<int32_t>{4, 5, 6}));
    EXPECT_EQ(plan.layers[0].kept[1], (std::vector<int32_t>{4, 5, 6}));
    const auto odd = make_method("adakv", {.keep = 0.72, .params = {{"window", "2"}, {"safeguard", "0"}}});
    const Plan uneven = odd->plan(small_shape(1, 3, 5), std::vector<LayerScore>{with_window({same, same, same})});
    for (const auto & kept : uneven.layers[0].kept) {  // 15 of 21: positions 0 and 1 of all heads leave
        EXPECT_EQ(kept, (std::vector<int32_t>{2, 3, 4, 5, 6}));
    }
}

TEST(MixKv, ScoresAreAttentionAloneWhereKeysAreEqualAndValuesToo) {
    // Equal keys: redundancy 1, all diversity equal: every token scores the same, the later ones stay.
    const std::vector<float> same(2 * 60 * 4, 0.5F);
    auto prompt = fake_prompt(kShape, Pattern::softmax, 3);
    prompt.layers[0]->keys = same;
    const auto method = make_method("mixkv", {.keep = 0.5, .params = {{"window", "8"}}});
    const LayerScore score = method->score(kShape, 0, *prompt.layers[0]);
    EXPECT_EQ(std::get<std::vector<double>>(score.stats.at("r")).size(), 2U);
    EXPECT_NEAR(std::get<std::vector<double>>(score.stats.at("r"))[0], 1.0, 1e-9);
    for (size_t k = 0; k < 52; ++k) {
        EXPECT_NEAR(score.score[k], 0.0, 1e-6);
    }
}

TEST(Cake, SpreadHandsOnWhatAFullLayerCannotTake) {
    EXPECT_EQ(spread_budgets(std::vector<double>{1, 1, 1}, 10, 5), (std::vector<int64_t>{4, 3, 3}));
    EXPECT_EQ(spread_budgets(std::vector<double>{8, 1, 1}, 10, 5), (std::vector<int64_t>{5, 3, 2}));
    EXPECT_EQ(spread_budgets(std::vector<double>{1, 0, 0}, 14, 5), (std::vector<int64_t>{5, 5, 4}));
    EXPECT_EQ(spread_budgets(std::vector<double>{1, 0, 0}, 99, 5), (std::vector<int64_t>{5, 5, 5}));
}

TEST(Cake, ALayerWithSpreadAttentionGetsMoreRows) {
    const auto method = make_method("cake", {.keep = 0.4, .params = {{"window", "8"}}});
    const auto varied = fake_prompt(kShape, Pattern::softmax, 3), sink = fake_prompt(kShape, Pattern::sink, 3);
    std::vector<LayerScore> scores = test::score_all(*method, varied);
    scores[1] = method->score(kShape, 1, *sink.layers[1]);  // no entropy, no variance
    const Plan plan = method->plan(kShape, scores);
    EXPECT_EQ(plan.layers[1].kept[0].size(), 8U);  // the window alone
    EXPECT_EQ(std::get<std::vector<double>>(plan.extra.at("preference"))[1], 0.0);
}

TEST(Lava, CappedLayersHandTheRestOn) {
    EXPECT_EQ(capped_amounts(std::vector<double>{3, 1}, 8, 10), (std::vector<double>{6, 2}));
    EXPECT_EQ(capped_amounts(std::vector<double>{3, 1}, 12, 8), (std::vector<double>{8, 4}));
    EXPECT_EQ(capped_amounts(std::vector<double>{0, 0}, 6, 8), (std::vector<double>{3, 3}));
}

TEST(Lava, HeadsCompeteForWhatTheFloorLeaves) {
    std::vector<double> high(20, 5.0), low(20, 1.0);
    const PromptShape shape = small_shape(1, 2, 20);
    const auto sizes = [&](const std::string & floor) {
        const auto method = make_method("lava", {.keep = 0.5, .params = {{"window", "2"}, {"floor", floor}}});
        LayerScore score = with_window({high, low});
        score.stats["score_entropy"] = 1.0;
        const Plan plan = method->plan(shape, std::vector<LayerScore>{score});
        return std::pair(plan.layers[0].kept[0].size() - 2, plan.layers[0].kept[1].size() - 2);
    };
    EXPECT_EQ(sizes("0"), std::pair(size_t{18}, size_t{0}));  // n = 11, so 9 a head besides the window
    EXPECT_EQ(sizes("1"), std::pair(size_t{9}, size_t{9}));
    EXPECT_EQ(sizes("0.2"), std::pair(size_t{15}, size_t{1}));  // round(18 * 0.8 + 1), round(0 + trunc(1.8))
}

}  // namespace
}  // namespace kvsieve
