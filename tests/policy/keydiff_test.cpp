// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>

#include "policy/fake_observation.h"

namespace kvsieve {
namespace {

constexpr PromptShape kShape{.n_layer = 1, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 40};

TEST(KeyDiff, TheKeyThatPointsAwayStays) {
    auto prompt = test::fake_prompt(kShape, test::Pattern::softmax, 5);
    std::vector<float> keys(2 * 40 * 4, 1.0F);
    std::fill_n(keys.begin() + 4 * 17, 4, -3.0F);
    std::fill_n(keys.begin() + 4 * (40 + 23), 4, 0.0F);  // a zero key counts as orthogonal
    prompt.layers[0]->keys = keys;
    const auto method = make_method("keydiff", {.keep = 0.025});
    const LayerScore score = method->score(kShape, 0, *prompt.layers[0]);
    EXPECT_NEAR(score.score[17], 1.0, 1e-12);
    EXPECT_NEAR(score.score[0], -1.0, 1e-12);
    EXPECT_EQ(score.score[63], 0.0);
}

}  // namespace
}  // namespace kvsieve
