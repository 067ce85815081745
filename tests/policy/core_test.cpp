// SPDX-License-Identifier: MIT
// Rounding, selection, numbers: the parts that all methods share.
#include <gtest/gtest.h>

#include <cfenv>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "policy/fake_observation.h"
#include "policy/number.h"
#include "policy/prompt.h"
#include "policy/select.h"

namespace kvsieve {
namespace {

TEST(Budget, TruncIsGuardedAgainstBinaryFractions) {
    EXPECT_EQ(trunc_guarded(100 * (1 - 0.9)), 10);  // 9.999999999999998
    EXPECT_EQ(rows_of_keep(100, 0.1), 10);
    EXPECT_EQ(rows_of_keep(10, 1 - 0.9), 1);
    EXPECT_EQ(trunc_guarded(9.99999), 9);
    EXPECT_EQ(trunc_guarded(0.0), 0);
    for (int64_t n = 1; n < 3000; ++n) {
        for (int64_t part = 1; part <= 20; ++part) {
            EXPECT_EQ(rows_of_keep(n, static_cast<double>(part) / 20), n * part / 20);
        }
    }
}

TEST(Budget, HalfGoesToEvenInEveryRoundingMode) {
    for (const int mode : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD}) {
        std::fesetround(mode);
        EXPECT_EQ(round_half_even(0.5), 0);
        EXPECT_EQ(round_half_even(1.5), 2);
        EXPECT_EQ(round_half_even(2.5), 2);
        EXPECT_EQ(round_half_even(2.4999), 2);
        EXPECT_EQ(round_half_even(2.5001), 3);
    }
    std::fesetround(FE_TONEAREST);
}

TEST(Budget, LargestRemainderIsExactAndPrefersLowerLayers) {
    const std::vector<double> shares = {0.26, 0.26, 0.48};
    EXPECT_EQ(largest_remainder(shares, 10, 10), (std::vector<int64_t>{3, 2, 5}));  // 2.6, 2.6, 4.8
    EXPECT_EQ(largest_remainder(std::vector<double>{0.5, 0.5}, 1, 1), (std::vector<int64_t>{1, 0}));
    EXPECT_EQ(largest_remainder(std::vector<double>{1.0, 1.0}, 4, 9), (std::vector<int64_t>{4, 4}));  // full
}

TEST(Budget, SharesAboveOneAreCappedAndHandedOn) {
    const auto shares = capped_shares(std::vector<double>{2.0, 1.5, 0.3, 0.2}, 0.8);
    EXPECT_DOUBLE_EQ(std::accumulate(shares.begin(), shares.end(), 0.0), 0.8 * 4);
    EXPECT_DOUBLE_EQ(shares[0], 1);
    EXPECT_DOUBLE_EQ(shares[1], 1);
    EXPECT_NEAR(shares[2] / shares[3], 1.5, 1e-12);
    EXPECT_EQ(capped_shares(std::vector<double>{3.0, 0.0, 0.0}, 0.5), (std::vector<double>{1.0, 0.25, 0.25}));
}

TEST(Select, AmongEqualScoresTheLaterPositionSurvives) {
    const std::vector<double> score = {5, 1, 2, 1, 1, 2, 0};
    const std::vector<uint8_t> mask(score.size(), 1);
    const auto runs = runs_of(mask);
    CutScratch scratch;
    const auto kept = [&](int64_t n_drop) {
        return keep_best({.all = score, .runs = runs, .n = score.size()}, n_drop, scratch);
    };
    EXPECT_EQ(kept(1), (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(kept(2), (std::vector<int32_t>{0, 2, 3, 4, 5}));
    EXPECT_EQ(kept(3), (std::vector<int32_t>{0, 2, 4, 5}));
    EXPECT_EQ(kept(5), (std::vector<int32_t>{0, 5}));
    EXPECT_EQ(kept(-3).size(), 7U);
    EXPECT_TRUE(kept(100).empty());
}

TEST(Select, PerHeadScoresAndBudgetsMakePerHeadPlans) {
    const PromptShape prompt{
        .n_layer = 1, .n_head = 2, .n_head_kv = 2, .head_dim = 0, .n_tokens = 3, .visual_mask = {}};
    const Field all = make_field(prompt, Scope::all, {});
    CutScratch scratch;
    const LayerScore two{.score = {1, 2, 3, 3, 2, 1}, .stats = {}};
    EXPECT_EQ(select_layer(prompt, all, two, {{2}}, scratch).kept, (std::vector<std::vector<int32_t>>{{1, 2}, {0, 1}}));
    EXPECT_EQ(select_layer(prompt, all, two, {{1, 3}}, scratch).kept,
              (std::vector<std::vector<int32_t>>{{2}, {0, 1, 2}}));
    const LayerScore one{.score = {1, 2, 3}, .stats = {}};
    EXPECT_EQ(select_layer(prompt, make_field(prompt, Scope::middle, {}), one, {{0, 3}}, scratch).kept,
              (std::vector<std::vector<int32_t>>{{0, 2}, {0, 1, 2}}));
    EXPECT_THROW((void)select_layer(prompt, all, {.score = {1, 2}, .stats = {}}, {{1}}, scratch), Error);
    EXPECT_THROW((void)select_layer(prompt, all, two, {{1, 1, 1}}, scratch), Error);
}

TEST(Prompt, TextBehindTheLastImage) {
    const PromptShape p{
        .n_layer = 1, .n_head = 1, .n_head_kv = 1, .head_dim = 0, .n_tokens = 7, .visual_mask = {0, 1, 0, 1, 1, 0, 0}};
    EXPECT_EQ(visual_positions(p), (std::vector<int32_t>{1, 3, 4}));
    EXPECT_EQ(positions_after_visual(p), (std::vector<int32_t>{5, 6}));
}

TEST(Numbers, OnlyWholeFiniteOnesAreRead) {
    EXPECT_EQ(parse_number("0.25"), 0.25);
    EXPECT_EQ(parse_number("1e-3"), 1e-3);
    for (const char * bad : {"", "abc", "nan", "inf", "0.5x", " 1", "1 ", "0x10", "1e999", "+1", "0,5", "--1"}) {
        EXPECT_EQ(parse_number(bad), std::nullopt) << bad;
    }
    EXPECT_EQ(parse_unsigned("18446744073709551615"), 18446744073709551615ULL);
    for (const char * bad : {"", "-1", "1.5", "18446744073709551616", "+3"}) {
        EXPECT_EQ(parse_unsigned(bad), std::nullopt) << bad;
    }
    EXPECT_EQ(number_text(0.2), "0.2");
    EXPECT_EQ(number_text(5), "5");
}

}  // namespace
}  // namespace kvsieve
