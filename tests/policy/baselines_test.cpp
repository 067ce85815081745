// SPDX-License-Identifier: MIT
// full and random.
#include <gtest/gtest.h>

#include <map>

#include "policy/fake_observation.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::Pattern;

constexpr PromptShape kShape{.n_layer = 3, .n_head = 1, .n_head_kv = 1, .head_dim = 0, .n_tokens = 50};

Plan random_plan(double keep, uint64_t seed) {
    const auto method = make_method("random", {.keep = keep, .seed = seed});
    const auto prompt = fake_prompt(kShape, Pattern::zero, 1);
    return method->plan(kShape, test::score_all(*method, prompt));
}

TEST(Full, KeepsEverythingAndTakesNoKeep) {
    const auto method = make_method("full", {});
    const auto prompt = fake_prompt(kShape, Pattern::softmax, 1);
    const Plan plan = method->plan(kShape, test::score_all(*method, prompt));
    EXPECT_TRUE(plan.keeps_everything);
    EXPECT_TRUE(plan.decode.empty());
    EXPECT_EQ(plan.layers[2].kept[0].size(), 50U);
    EXPECT_NE(error_of([] { (void)make_method("full", {.keep = 0.5}); }).find("takes no keep"), std::string::npos);
}

TEST(Random, KeepsExactCountsAndTheEnds) {
    for (const auto & [keep, expected] : std::map<double, size_t>{{0.02, 2}, {0.1, 5}, {0.5, 25}, {0.99, 49}}) {
        for (const LayerPlan & layer : random_plan(keep, 3).layers) {
            EXPECT_EQ(layer.kept[0].size(), expected) << keep;
            EXPECT_EQ(layer.kept[0].front(), 0);
            EXPECT_EQ(layer.kept[0].back(), 49);
        }
    }
}

TEST(Random, DependsOnSeedAndLayer) {
    EXPECT_EQ(random_plan(0.3, 5).layers, random_plan(0.3, 5).layers);
    EXPECT_NE(random_plan(0.3, 5).layers, random_plan(0.3, 6).layers);
    const Plan plan = random_plan(0.3, 5);
    EXPECT_NE(plan.layers[0], plan.layers[1]);
    EXPECT_NE(plan.layers[1], plan.layers[2]);
}

TEST(Random, ChoosesEveryUnprotectedPositionEquallyOften) {
    std::vector<int> n_chosen(50, 0);
    constexpr int kSeeds = 1000;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
        for (const LayerPlan & layer : random_plan(0.26, seed).layers) {  // 13 of 50: 2 ends and 11 of 48
            for (const int32_t k : layer.kept[0]) {
                ++n_chosen[static_cast<size_t>(k)];
            }
        }
    }
    // 3000 draws with p = 11/48: mean 687.5, standard deviation 23; 4.5 of them.
    for (size_t k = 1; k < 49; ++k) {
        EXPECT_NEAR(n_chosen[k], 687.5, 104) << k;
    }
}

}  // namespace
}  // namespace kvsieve
