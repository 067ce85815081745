// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "policy/fake_observation.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::Pattern;

MethodOptions with_profile(std::vector<double> forget) {
    MethodOptions options;
    options.profile = Profile{.forget = std::move(forget)};
    return options;
}

Plan plan_of(const MethodOptions & options, const std::vector<std::vector<double>> & importance) {
    PromptShape shape{.n_layer = static_cast<int32_t>(importance.size())};
    shape.n_tokens = static_cast<int32_t>(importance[0].size());
    std::vector<LayerScore> scores;
    for (const auto & layer : importance) {
        scores.push_back({.score = layer});
    }
    return make_method("prefixkv", options)->plan(shape, scores);
}

TEST(PrefixKv, TotalStaysWithinTheTarget) {
    for (uint32_t seed = 0; seed < 100; ++seed) {
        const PromptShape shape{.n_layer = 6, .n_head = 2, .n_head_kv = 1, .n_tokens = 30 + static_cast<int32_t>(seed)};
        const auto prompt = fake_prompt(shape, Pattern::softmax, seed);
        const double keep = 0.1 + 0.008 * seed;
        const auto method = make_method("prefixkv", {.keep = keep});
        const Plan plan = method->plan(shape, test::score_all(*method, prompt));
        const auto & forget = std::get<std::vector<int32_t>>(plan.extra.at("forget"));
        const double target = 6.0 * shape.n_tokens * (1 - keep);
        const auto total = static_cast<double>(std::accumulate(forget.begin(), forget.end(), 0));
        EXPECT_LE(total, target + 1e-6);
        EXPECT_GT(total, target - 6);  // truncation loses less than one token per layer
        for (const LayerPlan & layer : plan.layers) {
            EXPECT_EQ(layer.kept[0].front(), 0);
            EXPECT_EQ(layer.kept[0].back(), shape.n_tokens - 1);
        }
    }
}

TEST(PrefixKv, PeakedLayersForgetMore) {
    std::vector<double> flat(100, 1.0), peaked(100, 0.001);
    peaked[10] = peaked[20] = 100;
    const Plan plan = plan_of({.keep = 0.5}, {flat, peaked});
    EXPECT_GT(plan.layers[0].kept[0].size(), plan.layers[1].kept[0].size());
    const auto & kept = plan.layers[1].kept[0];
    EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), 10) && std::binary_search(kept.begin(), kept.end(), 20));
}

TEST(PrefixKv, KeepOneIsNoEvictionAtAll) {
    const Plan plan = plan_of({.keep = 1}, {{1, 5, 2, 2, 9, 1}, {4, 0, 0, 0, 0, 0}});
    EXPECT_TRUE(plan.keeps_everything);
    EXPECT_TRUE(plan.decode.empty());
    EXPECT_EQ(simulate_decode(plan, 6, 100).final_len, (std::vector<int32_t>{106, 106}));
}

TEST(PrefixKv, ProfileRoundsHalfToEvenAndZeroForgetsNothing) {
    const std::vector<std::vector<double>> importance(3, {9, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    const Plan plan = plan_of(with_profile({0.25, 0.35, 0.0}), importance);
    EXPECT_EQ(std::get<std::vector<int32_t>>(plan.extra.at("forget")), (std::vector<int32_t>{2, 4, 0}));  // 2.5, 3.5
    EXPECT_EQ(plan.layers[0].kept[0], (std::vector<int32_t>{0, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ(plan.layers[2].kept[0].size(), 10U);
    ASSERT_EQ(plan.decode.size(), 3U);
    EXPECT_EQ(plan.decode[0].rho, 0.25);  // the file's, not 2/10
    EXPECT_EQ(plan.decode[0].drop_slot, 4);
    const Plan nothing = plan_of(with_profile({0.0, 0.04, 0.0}), importance);  // 0.4 of a token
    EXPECT_TRUE(nothing.keeps_everything);
    EXPECT_TRUE(nothing.decode.empty());
}

TEST(PrefixKv, ProfileMakesItLayerwise) {
    EXPECT_FALSE(make_method("prefixkv", {.keep = 0.5})->traits().layerwise);
    EXPECT_TRUE(make_method("prefixkv", with_profile({0.5}))->traits().layerwise);
    const PromptShape shape{.n_layer = 1, .n_tokens = 4};
    const LayerScore score{.score = {1, 1, 1, 1}};
    EXPECT_NE(
        error_of([&] { (void)make_method("prefixkv", {.keep = 0.5})->plan_layer(shape, 0, score); }).find("all layers"),
        std::string::npos);
}

TEST(PrefixKv, RefusesProfilesThatDoNotFit) {
    const PromptShape shape{.n_layer = 3, .n_tokens = 4};
    const std::string text = error_of([&] { make_method("prefixkv", with_profile({0.5, 0.5}))->check(shape); });
    EXPECT_NE(text.find("2 layers; expected 3"), std::string::npos) << text;
    for (const double bad : {1.0, -0.1, std::nan("")}) {
        EXPECT_THROW((void)make_method("prefixkv", with_profile({0.5, bad})), Error);
    }
    EXPECT_THROW((void)make_method("prefixkv", with_profile({})), Error);
    MethodOptions both = with_profile({0.5});
    both.keep = 0.5;
    EXPECT_NE(error_of([&] { (void)make_method("prefixkv", both); }).find("exclude"), std::string::npos);
    MethodOptions other = with_profile({0.5});
    other.profile->method = "pyramidkv";
    EXPECT_NE(error_of([&] { (void)make_method("prefixkv", other); }).find("pyramidkv"), std::string::npos);
}

TEST(PrefixKv, LengthFollowsTheProcessedTokensWhileDecoding) {
    const auto prompt = fake_prompt({.n_layer = 2, .n_head = 1, .n_head_kv = 1, .n_tokens = 60}, Pattern::softmax, 4);
    const auto method = make_method("prefixkv", {.keep = 0.4});
    const Plan plan = method->plan(prompt.shape, test::score_all(*method, prompt));
    const auto trace = simulate_decode(plan, 60, 500);
    for (size_t il = 0; il < 2; ++il) {
        EXPECT_NEAR(trace.final_len[il], (1 - plan.decode[il].rho) * 560, 1.0);
    }
    EXPECT_THROW((void)simulate_decode(plan, 60, -1), Error);
}

TEST(PrefixKv, ScoresThatAreNotFiniteAreRefused) {
    class Bad final : public LayerObservation {
      public:
        void rows(std::span<const int32_t> /*positions*/, std::vector<float> & /*out*/) const override {}
    };
    const std::vector<float> values = {1, std::numeric_limits<float>::quiet_NaN(), 2};
    Bad obs;
    obs.importance = values;
    const PromptShape p = {.n_layer = 1, .n_tokens = 3};
    const std::string text = error_of([&] { (void)make_method("prefixkv", {.keep = 0.5})->score(p, 0, obs); });
    EXPECT_NE(text.find("layer 0 at position 1"), std::string::npos) << text;
}

}  // namespace
}  // namespace kvsieve
