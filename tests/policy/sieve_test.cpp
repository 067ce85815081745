// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cmath>

#include "policy/fake_observation.h"

namespace kvsieve {
namespace {

constexpr PromptShape kShape{.n_layer = 2, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 10};

TEST(Sieve, ScoreIsTheSpreadOfTheProbesTimesTheOutputsNorm) {
    auto prompt = test::fake_prompt(kShape, test::Pattern::softmax, 5);
    std::vector<float> mean(40, 0.0F), square(40, 0.0F), norm(40, 2.0F);
    mean[3] = 0.5F;  // head 0
    square[3] = 0.5F;
    mean[13] = 0.25F;  // head 1, which shares KV head 0
    square[13] = 0.0625F;
    norm[13] = 4.0F;
    prompt.layers[0]->probe_mean = mean;
    prompt.layers[0]->probe_square = square;
    prompt.layers[0]->output_norm = norm;
    const auto score_of = [&](std::map<std::string, std::string> params) {
        const auto method = make_method("sieve", {.keep = 0.5, .params = std::move(params)});
        return method->score(kShape, 0, *prompt.layers[0]).score.at(3);
    };
    EXPECT_NEAR(score_of({}), std::sqrt((0.5 * 4 + 0.0625 * 16) / 2), 1e-12);                  // root mean square
    EXPECT_NEAR(score_of({{"spread", "0"}}), std::sqrt((0.25 * 4 + 0.0625 * 16) / 2), 1e-12);  // mean
    EXPECT_NEAR(score_of({{"output", "0"}}), std::sqrt((0.5 + 0.0625) / 2), 1e-12);
}

TEST(Sieve, LayersAndHeadsCompeteForWhatIsNotSafe) {
    std::vector<LayerScore> scores(2);
    for (size_t i = 0; i < 20; ++i) {
        scores[0].score.push_back(static_cast<double>(i));        // 10 .. 19 in KV head 1
        scores[1].score.push_back(static_cast<double>(i) / 100);  // smaller than nearly all of layer 0
    }
    const auto counts = [&](const char * safe) {
        const auto method = make_method("sieve", {.keep = 0.4, .params = {{"safe", safe}}});
        const Plan plan = method->plan(kShape, scores);
        std::vector<size_t> out;
        for (const LayerPlan & layer : plan.layers) {
            for (const auto & kept : layer.kept) {
                out.push_back(kept.size());
            }
        }
        return out;
    };
    EXPECT_EQ(counts("0"), (std::vector<size_t>{6, 10, 0, 0}));
    EXPECT_EQ(counts("0.5"), (std::vector<size_t>{2, 10, 2, 2}));
    EXPECT_EQ(counts("1"), (std::vector<size_t>{4, 4, 4, 4}));
}

}  // namespace
}  // namespace kvsieve
