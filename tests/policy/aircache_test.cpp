// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>

#include "policy/fake_observation.h"
#include "policy/methods/aircache.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::FakePrompt;
using test::Pattern;

PromptShape shape_of(int32_t n_layer, int32_t n_before, int32_t n_visual, int32_t n_after) {
    PromptShape p{.n_layer = n_layer, .n_head = 4, .n_head_kv = 2, .n_tokens = n_before + n_visual + n_after};
    p.visual_mask.assign(static_cast<size_t>(p.n_tokens), 0);
    std::fill_n(p.visual_mask.begin() + n_before, n_visual, uint8_t{1});
    return p;
}

Plan plan_of(const FakePrompt & prompt, const MethodOptions & options) {
    const auto method = make_method("aircache", options);
    return method->plan(prompt.shape, test::score_all(*method, prompt));
}

const std::vector<double> & numbers(const Plan & plan, const std::string & name) {
    return std::get<std::vector<double>>(plan.extra.at(name));
}

TEST(AirCache, TotalIsExactAndTextStays) {
    for (uint32_t seed = 0; seed < 100; ++seed) {
        const int32_t n_visual = 3 + static_cast<int32_t>(seed % 40);
        const FakePrompt prompt = fake_prompt(shape_of(5, 2, n_visual, 6), static_cast<Pattern>(seed % 4), seed);
        const double keep = 0.01 + 0.0098 * seed;
        const Plan plan = plan_of(prompt, {.keep = keep});
        int total = 0;
        for (const int32_t n : std::get<std::vector<int32_t>>(plan.extra.at("n_visual"))) {
            total += n;
        }
        EXPECT_EQ(total, static_cast<int>(std::floor(keep * 5 * n_visual + 0.5))) << seed;
        for (const LayerPlan & layer : plan.layers) {
            for (int32_t k = 0; k < prompt.shape.n_tokens; ++k) {
                EXPECT_TRUE(prompt.shape.visual_mask[static_cast<size_t>(k)] != 0 ||
                            std::binary_search(layer.kept[0].begin(), layer.kept[0].end(), k));
            }
        }
    }
}

TEST(AirCache, BlockSizeChangesNothingAndBoundsTheRows) {
    const FakePrompt prompt = fake_prompt(shape_of(1, 3, 20, 30), Pattern::softmax, 9);
    const auto whole = elite_scorer(0.1, EliteQueries::elite)->score(prompt.shape, 0, *prompt.layers[0]);
    const auto n_elite = std::get<std::vector<int32_t>>(whole.stats.at("elite")).size();
    ASSERT_GT(n_elite, 4U);
    EXPECT_EQ(prompt.layers[0]->largest_ask, n_elite);
    const size_t row = 4U * 53U;  // floats of one query's rows, [H, T]
    for (const size_t n_rows : {0U, 1U, 3U}) {
        const FakePrompt same = fake_prompt(prompt.shape, Pattern::softmax, 9);
        const auto blocks = elite_scorer(0.1, EliteQueries::elite, n_rows * row)->score(same.shape, 0, *same.layers[0]);
        EXPECT_EQ(whole.score, blocks.score);
        EXPECT_EQ(whole.stats, blocks.stats);
        EXPECT_EQ(same.layers[0]->largest_ask, std::max<size_t>(n_rows, 1));
    }
}

TEST(AirCache, QueriesChooseWhoScores) {
    const FakePrompt prompt = fake_prompt(shape_of(1, 2, 10, 5), Pattern::softmax, 2);
    const auto elite = [&](const std::string & alpha, const std::string & queries) {
        const Plan plan = plan_of(prompt, {.keep = 0.5, .params = {{"alpha", alpha}, {"queries", queries}}});
        return std::get<std::vector<std::vector<int32_t>>>(plan.extra.at("elite")).at(0);
    };
    const std::vector<int32_t> all = {12, 13, 14, 15, 16};
    EXPECT_EQ(elite("0.9", "all"), all);
    EXPECT_EQ(elite("0", "elite"), all);
    EXPECT_EQ(elite("0.9", "last"), std::vector<int32_t>{16});
    EXPECT_EQ(elite("1", "elite").size(), 1U);
}

TEST(AirCache, WeightsHaveMeanOneAndFollowTheirStatistic) {
    const FakePrompt prompt = fake_prompt(shape_of(6, 2, 30, 5), Pattern::softmax, 2);
    std::map<std::string, std::vector<double>> weights;
    for (const std::string word : {"both", "strength", "skew", "uniform"}) {
        weights[word] = numbers(plan_of(prompt, {.keep = 0.3, .params = {{"weights", word}}}), "weights");
        double sum = 0;
        for (const double w : weights[word]) {
            sum += w;
        }
        EXPECT_NEAR(sum, 6, 1e-12) << word;
    }
    for (size_t l = 0; l < 6; ++l) {
        EXPECT_DOUBLE_EQ(weights["both"][l], (weights["strength"][l] + weights["skew"][l]) / 2);
        EXPECT_EQ(weights["uniform"][l], 1);
    }
    EXPECT_NE(weights["strength"], weights["skew"]);
    EXPECT_TRUE(make_method("aircache", {.keep = 0.3, .params = {{"weights", "uniform"}}})->traits().layerwise);
    EXPECT_FALSE(make_method("aircache", {.keep = 0.3})->traits().layerwise);
}

TEST(AirCache, EqualScoresHaveNoSkew) {
    const FakePrompt prompt = fake_prompt(shape_of(2, 1, 7, 3), Pattern::constant, 1);
    const Plan plan = plan_of(prompt, {.keep = 0.5});
    EXPECT_EQ(numbers(plan, "skew"), (std::vector<double>{0, 0}));
    EXPECT_EQ(numbers(plan, "weights"), (std::vector<double>{1, 1}));
    EXPECT_EQ(plan.layers[0].kept[0], (std::vector<int32_t>{0, 4, 5, 6, 7, 8, 9, 10}));  // 7 of 14: 4 and 3
    EXPECT_EQ(plan.layers[1].kept[0], (std::vector<int32_t>{0, 5, 6, 7, 8, 9, 10}));
}

TEST(AirCache, RefusesPromptsWithoutImageOrWithoutTextBehindIt) {
    const auto method = make_method("aircache", {.keep = 0.5});
    EXPECT_NE(error_of([&] { method->check(shape_of(1, 4, 0, 3)); }).find("needs visual tokens"), std::string::npos);
    EXPECT_NE(error_of([&] { method->check(shape_of(1, 4, 3, 0)); }).find("text behind"), std::string::npos);
    PromptShape no_mask = shape_of(1, 4, 3, 2);
    no_mask.visual_mask.clear();
    EXPECT_THROW(method->check(no_mask), Error);
}

}  // namespace
}  // namespace kvsieve
