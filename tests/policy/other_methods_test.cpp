// SPDX-License-Identifier: MIT
// Special rules of streaming_llm, h2o, elastic_cache, uniform_prefix, tova, knorm, expected_attention,
// vl_cache and fastv.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "policy/budget.h"
#include "policy/fake_observation.h"
#include "policy/merge.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::FakePrompt;
using test::Pattern;

constexpr PromptShape kShape{.n_layer = 3, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 40};

Plan plan_of(const std::string & name, const MethodOptions & options, const FakePrompt & prompt) {
    const auto method = make_method(name, options);
    return method->plan(prompt.shape, test::score_all(*method, prompt));
}

PromptShape with_image(int32_t n_before, int32_t n_visual, int32_t n_after) {
    PromptShape p = kShape;
    p.n_tokens = n_before + n_visual + n_after;
    p.visual_mask.assign(static_cast<size_t>(p.n_tokens), 0);
    std::fill_n(p.visual_mask.begin() + n_before, n_visual, uint8_t{1});
    return p;
}

TEST(StreamingLlm, KeepsTheSinksFirst) {
    const auto prompt = fake_prompt(kShape, Pattern::zero, 1);
    EXPECT_EQ(plan_of("streaming_llm", {.keep = 0.15}, prompt).layers[1].kept[0],
              (std::vector<int32_t>{0, 1, 2, 3, 38, 39}));
    EXPECT_EQ(plan_of("streaming_llm", {.keep = 0.05}, prompt).layers[1].kept[0], (std::vector<int32_t>{0, 1}));
    EXPECT_EQ(plan_of("streaming_llm", {.keep = 0.05, .params = {{"n_sink", "0"}}}, prompt).layers[1].kept[0],
              (std::vector<int32_t>{38, 39}));
}

TEST(H2o, DividesByTheQueriesThatSeeAToken) {
    auto prompt = fake_prompt(kShape, Pattern::softmax, 2);
    std::vector<float> colsum(4 * 40);
    for (size_t i = 0; i < colsum.size(); ++i) {
        colsum[i] = static_cast<float>(40 - i % 40);  // every query that sees a token pays it 1
    }
    prompt.layers[0]->colsum = colsum;
    const LayerScore score = make_method("h2o", {.keep = 0.5})->score(kShape, 0, *prompt.layers[0]);
    EXPECT_EQ(score.score, std::vector<double>(2 * 40, 1.0));
}

TEST(ElasticCache, MergesIntoTheNearestKeptMiddlePosition) {
    const std::vector<Merge> expected = {{1, 3}, {2, 3}, {4, 3}, {5, 6}, {7, 6}, {8, 6}};
    EXPECT_EQ(merges_into_nearest(std::vector<int32_t>{0, 3, 6, 9}, 10), expected);
    // 5 lies between 3 and 7: the lower one
    EXPECT_EQ(merges_into_nearest(std::vector<int32_t>{0, 3, 7, 9}, 10)[3], (Merge{5, 3}));
    EXPECT_TRUE(merges_into_nearest(std::vector<int32_t>{0, 9}, 10).empty());
    EXPECT_TRUE(merges_into_nearest(std::vector<int32_t>{0}, 1).empty());
}

TEST(ElasticCache, EveryDroppedRowMergesOnceAndDecodingGoesOn) {
    const auto prompt = fake_prompt(kShape, Pattern::softmax, 5);
    const Plan plan = plan_of("elastic_cache", {.keep = 0.3}, prompt);
    ASSERT_EQ(plan.decode.size(), 3U);
    for (const LayerPlan & layer : plan.layers) {
        EXPECT_EQ(layer.kept[0].size(), 12U);
        EXPECT_EQ(layer.merged.size(), 28U);
    }
    EXPECT_EQ(plan.decode[0].rho, 28.0 / 40);
    EXPECT_EQ(plan.decode[0].drop_slot, 6);  // 40 - 28 - 25 < 1: half of what is kept
    EXPECT_TRUE(make_method("elastic_cache", {.keep = 0.3})->traits().merges);
}

TEST(ElasticCache, RankFaultTakesIndicesForRanks) {
    const PromptShape shape{.n_layer = 1, .n_head = 1, .n_head_kv = 1, .n_tokens = 7};
    class Given final : public LayerObservation {
      public:
        explicit Given(std::span<const float> numbers) { importance = numbers; }
        void rows(std::span<const int32_t> /*positions*/, std::vector<float> & /*out*/) const override {}
    };
    const std::vector<float> values = {9, 5, 1, 4, 2, 3, 9};  // argsort of the middle: 1 3 4 2 0
    const auto kept = [&](const std::string & fault) {
        const auto method = make_method("elastic_cache", {.keep = 5.0 / 7, .params = {{"rank_fault", fault}}});
        return method->plan(shape, std::vector<LayerScore>{method->score(shape, 0, Given(values))}).layers[0].kept[0];
    };
    EXPECT_EQ(kept("0"), (std::vector<int32_t>{0, 1, 3, 5, 6}));  // 1 and 2 leave
    EXPECT_EQ(kept("1"), (std::vector<int32_t>{0, 2, 3, 4, 6}));  // where argsort says 0 and 1
}

TEST(UniformPrefix, LengthFollowsTheProcessedTokens) {
    const auto prompt = fake_prompt(kShape, Pattern::softmax, 5);
    const Plan plan = plan_of("uniform_prefix", {.keep = 0.5}, prompt);
    const DecodeTrace trace = simulate_decode(plan, 40, 200);
    EXPECT_EQ(trace.final_len, (std::vector<int32_t>{120, 120, 120}));
}

TEST(Tova, TheLastTokenStaysAndOneTokenIsEnough) {
    const auto prompt = fake_prompt(kShape, Pattern::sink, 5);
    EXPECT_EQ(plan_of("tova", {.keep = 0.05}, prompt).layers[0].kept[0], (std::vector<int32_t>{0, 39}));
    PromptShape one = kShape;
    one.n_tokens = 1;
    EXPECT_EQ(plan_of("tova", {.keep = 0.99}, fake_prompt(one, Pattern::softmax, 1)).layers[0].kept[0].size(), 0U);
    EXPECT_EQ(plan_of("tova", {.keep = 1}, fake_prompt(one, Pattern::softmax, 1)).layers[0].kept[0].size(), 1U);
}

TEST(KNorm, SmallKeysStayAndTheFirstLayersCanBeSkipped) {
    auto prompt = fake_prompt(kShape, Pattern::softmax, 5);
    std::vector<float> keys(2 * 40 * 4, 1.0F);
    std::fill_n(keys.begin() + 4 * 17, 4, 0.5F);           // head 0, position 17
    std::fill_n(keys.begin() + 4 * (40 + 23), 4, -0.25F);  // head 1, position 23
    for (auto & layer : prompt.layers) {
        layer->keys = keys;
    }
    const Plan plan = plan_of("knorm", {.keep = 0.025, .params = {{"skip_layers", "1"}}}, prompt);
    EXPECT_EQ(plan.layers[0].kept[1].size(), 40U);
    EXPECT_EQ(plan.layers[1].kept, (std::vector<std::vector<int32_t>>{{17}, {23}}));
}

/// An observation for expected attention: given keys, and queries that are all `mean`.
class Queries final : public LayerObservation {
  public:
    Queries(std::vector<float> keys_, std::vector<float> mean_) : keys_store_(std::move(keys_)), mean_store_(mean_) {
        keys = keys_store_;
        values = keys_store_;
        query_mean = mean_store_;
    }
    void rows(std::span<const int32_t> /*positions*/, std::vector<float> & /*out*/) const override {}

  private:
    std::vector<float> keys_store_, mean_store_;
};

TEST(ExpectedAttention, FollowsTheMeanRotationInBothLayouts) {
    // One head, d = 4, two pairs; the second pair does not rotate. Queries point along the first pair.
    PromptShape shape{.n_layer = 1, .n_head = 1, .n_head_kv = 1, .head_dim = 4, .n_tokens = 4};
    shape.rope.freqs = {static_cast<float>(std::acos(-1.0) / 2), 0.0F};
    shape.next_position = 9;  // one future position: a rotation by 9 quarter turns, x to y
    const MethodOptions options{.keep = 0.5,
                                .params = {{"n_future", "1"}, {"n_sink", "0"}, {"covariance", "0"}, {"vnorm", "0"}}};
    const auto method = make_method("expected_attention", options);
    const auto best = [&](bool interleaved) {
        shape.rope.interleaved = interleaved;
        std::vector<float> keys(16, 0.0F), mean(4, 0.0F);
        for (size_t k = 0; k < 4; ++k) {
            keys[k * 4 + k] = 1.0F;  // key k is unit vector k
        }
        mean[0] = 1.0F;
        const LayerScore score = method->score(shape, 0, Queries(keys, mean));
        return std::max_element(score.score.begin(), score.score.end()) - score.score.begin();
    };
    EXPECT_EQ(best(false), 2);  // pair 0 is dims 0 and 2
    EXPECT_EQ(best(true), 1);   // pair 0 is dims 0 and 1
}

TEST(ExpectedAttention, NeedsFrequenciesThatFitAndMoreTokensThanSinks) {
    PromptShape shape{.n_layer = 1, .n_head = 1, .n_head_kv = 1, .head_dim = 4, .n_tokens = 4};
    const auto method = make_method("expected_attention", {.keep = 0.5, .params = {{"covariance", "0"}}});
    EXPECT_NE(error_of([&] { method->check(shape); }).find("4 sinks"), std::string::npos);
    shape.n_tokens = 8;
    const Queries obs(std::vector<float>(32, 1.0F), std::vector<float>(4, 1.0F));
    EXPECT_NE(error_of([&] { (void)method->score(shape, 0, obs); }).find("rope_freqs"), std::string::npos);
    shape.rope.freqs = {1, 1, 1};
    EXPECT_NE(error_of([&] { (void)method->score(shape, 0, obs); }).find("expected 1 to 2"), std::string::npos);
    shape.rope.freqs = {1, 1};
    EXPECT_NO_THROW((void)method->score(shape, 0, obs));
    const auto with_cov = make_method("expected_attention", {.keep = 0.5});
    EXPECT_NE(error_of([&] { (void)with_cov->score(shape, 0, obs); }).find("query_cov"), std::string::npos);
    const Traits & traits = with_cov->traits();
    EXPECT_TRUE(traits.query_stats && traits.keys && traits.values);
    EXPECT_EQ(traits.n_sink, 4);
}

TEST(VlCache, DenserLayersGetMoreAndTheLastRowsStay) {
    const PromptShape shape = with_image(4, 40, 6);
    const auto flat = fake_prompt(shape, Pattern::constant, 3), sink = fake_prompt(shape, Pattern::sink, 3);
    const auto method = make_method("vl_cache", {.keep = 0.4});
    std::vector<LayerScore> scores = test::score_all(*method, flat);
    scores[2] = method->score(shape, 2, *sink.layers[2]);
    const Plan plan = method->plan(shape, scores);
    const auto & density = std::get<std::vector<double>>(plan.extra.at("density"));
    EXPECT_EQ(density[0], 1.0);
    EXPECT_LT(density[2], 0.05);
    EXPECT_GT(plan.layers[0].kept[0].size(), 4 * plan.layers[2].kept[0].size());
    for (const LayerPlan & layer : plan.layers) {
        EXPECT_EQ(layer.kept[0].back(), 49);
    }
    EXPECT_EQ(clipped_shares(std::vector<double>{1, 0}, 0.9, 0.01), (std::vector<double>{1.0, 0.01}));
    EXPECT_NE(error_of([&] { method->check(with_image(4, 0, 6)); }).find("visual"), std::string::npos);
    EXPECT_NE(error_of([&] { method->check(with_image(4, 8, 0)); }).find("text behind"), std::string::npos);
}

TEST(FastV, PrunesVisualTokensFromThePruneLayerOn) {
    const PromptShape shape = with_image(5, 30, 5);
    const auto prompt = fake_prompt(shape, Pattern::softmax, 3);
    const auto method = make_method("fastv", {.keep = 0.5, .params = {{"prune_layer", "2"}}});
    EXPECT_EQ(method->traits().prune_layer, 2);
    EXPECT_FALSE(method->traits().layerwise);
    const auto scores = test::score_all(*method, prompt);
    EXPECT_TRUE(scores[0].score.empty() && scores[2].score.empty());  // only layer 1 is looked at
    const Plan plan = method->plan(shape, scores);
    EXPECT_EQ(plan.layers[0].kept[0].size(), 40U);
    EXPECT_EQ(plan.layers[1].kept[0].size(), 40U);
    EXPECT_EQ(plan.layers[2].kept[0].size(), 25U);
    EXPECT_EQ(method->plan_layer(shape, 2, scores[1]), plan.layers[2]);
    EXPECT_EQ(method->plan_layer(shape, 1, scores[1]), plan.layers[1]);
    for (const int32_t k : {0, 4, 35, 39}) {
        EXPECT_TRUE(std::binary_search(plan.layers[2].kept[0].begin(), plan.layers[2].kept[0].end(), k)) << k;
    }
}

TEST(FastV, KeepsEverythingWithoutAnImageOrWithThePruneLayerBehindTheModel) {
    const auto text = fake_prompt(with_image(20, 0, 20), Pattern::softmax, 3);
    EXPECT_TRUE(plan_of("fastv", {.keep = 0.5}, text).keeps_everything);
    const auto image = fake_prompt(with_image(5, 30, 5), Pattern::softmax, 3);
    for (const std::string layer : {"3", "9"}) {
        EXPECT_TRUE(plan_of("fastv", {.keep = 0.5, .params = {{"prune_layer", layer}}}, image).keeps_everything);
    }
}

}  // namespace
}  // namespace kvsieve
