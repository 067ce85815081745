// SPDX-License-Identifier: MIT
#include "kvsieve/decode_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>

#include "policy/fake_observation.h"

namespace kvsieve {
namespace {

using test::error_of;

/// A set of rows as a cache holds it: the last row takes the place of one that leaves.
struct Rows {
    std::vector<int32_t> positions;

    void remove(const std::vector<int32_t> & slots) {
        ASSERT_TRUE(std::is_sorted(slots.rbegin(), slots.rend()));
        for (const int32_t slot : slots) {
            positions.at(static_cast<size_t>(slot)) = positions.back();
            positions.pop_back();
        }
    }
    [[nodiscard]] std::vector<int32_t> sorted() const {
        std::vector<int32_t> out = positions;
        std::sort(out.begin(), out.end());
        return out;
    }
};

std::vector<float> random_attention(size_t n, std::mt19937 & random) {
    std::vector<float> out(n);
    for (float & x : out) {
        x = static_cast<float>(random() % 64) / 64.0F;  // with ties
    }
    return out;
}

TEST(DecodePolicy, TheCapIsNeverExceededOver2000Tokens) {
    for (const std::string name : {"tova", "h2o", "window"}) {
        for (const int32_t cap : {1, 2, 5, 64}) {
            const auto policy = make_decode_policy(name, cap, 2, 3);
            EXPECT_EQ(policy->cap(), cap);
            EXPECT_EQ(policy->name(), name);
            std::mt19937 random(5);
            std::vector<Rows> sets(6);
            for (size_t i = 0; i < sets.size(); ++i) {  // prompts below and above the cap
                for (int32_t k = 0; k < static_cast<int32_t>(i * 20); ++k) {
                    sets[i].positions.push_back(k);
                }
            }
            std::vector<int32_t> slots;
            for (int32_t step = 0; step < 2000; ++step) {
                for (size_t i = 0; i < sets.size(); ++i) {
                    Rows & rows = sets[i];
                    const size_t n_before = rows.positions.size();
                    rows.positions.push_back(100 + step);
                    const auto attention = random_attention(n_before + 1, random);
                    policy->evict(static_cast<int32_t>(i / 3), static_cast<int32_t>(i % 3), rows.positions, attention,
                                  slots);
                    ASSERT_NO_FATAL_FAILURE(rows.remove(slots));
                    // exactly what is too much, nothing else
                    ASSERT_EQ(rows.positions.size(), std::min(n_before + 1, static_cast<size_t>(cap))) << name;
                    ASSERT_EQ(std::set<int32_t>(rows.positions.begin(), rows.positions.end()).size(),
                              rows.positions.size());
                }
            }
        }
    }
}

TEST(DecodePolicy, WindowKeepsSinksAndTheNewest) {
    const auto policy = make_decode_policy("window", 8, 1, 1);
    EXPECT_FALSE(policy->wants_attention());
    Rows rows{{0, 1, 2, 3, 10, 11, 12}};
    std::vector<int32_t> slots;
    for (int32_t position = 20; position < 40; ++position) {
        rows.positions.push_back(position);
        policy->evict(0, 0, rows.positions, {}, slots);
        rows.remove(slots);
    }
    EXPECT_EQ(rows.sorted(), (std::vector<int32_t>{0, 1, 2, 3, 36, 37, 38, 39}));
    // What a method has dropped does not come back, and leaves its place to newer rows.
    Rows without{{1, 10, 11, 12, 13, 14, 15, 16, 17, 18}};
    policy->evict(0, 0, without.positions, {}, slots);
    without.remove(slots);
    EXPECT_EQ(without.sorted(), (std::vector<int32_t>{1, 12, 13, 14, 15, 16, 17, 18}));
    const auto one = make_decode_policy("window", 1, 1, 1);
    Rows last{{0, 1, 2}};
    one->evict(0, 0, last.positions, {}, slots);
    last.remove(slots);
    EXPECT_EQ(last.positions, std::vector<int32_t>{2});
}

TEST(DecodePolicy, TovaDropsWhatTheNewestTokenIgnores) {
    const auto policy = make_decode_policy("tova", 3, 1, 1);
    std::vector<int32_t> slots;
    const std::vector<int32_t> positions = {7, 2, 5, 9};
    policy->evict(0, 0, positions, std::vector<float>{0.4F, 0.1F, 0.1F, 0.4F}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{1});  // of two equal ones the lower position
    policy->evict(0, 0, positions, std::vector<float>{0.4F, 0.3F, 0.2F, 0.1F}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{3});  // the newest may leave itself
    const std::vector<int32_t> many = {0, 1, 2, 3, 4, 5};
    policy->evict(0, 0, many, std::vector<float>{0.3F, 0.0F, 0.1F, 0.2F, 0.1F, 0.3F}, slots);
    EXPECT_EQ(slots, (std::vector<int32_t>{4, 2, 1}));
}

TEST(DecodePolicy, H2oAddsUpAttentionAndProtectsTheNewestHalf) {
    const auto policy = make_decode_policy("h2o", 4, 1, 1);
    std::vector<int32_t> slots;
    std::vector<int32_t> positions = {0, 1, 2, 3};
    policy->evict(0, 0, positions, std::vector<float>{5, 1, 3, 2}, slots);
    EXPECT_TRUE(slots.empty());  // within the cap
    positions.push_back(4);
    policy->evict(0, 0, positions, std::vector<float>{0, 0.1F, 0, 0, 0}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{1});  // 1.1 is the least of positions 0, 1, 2; 3 and 4 are recent
    positions = {0, 4, 2, 3, 5};                // the last row took the place of the one that left
    policy->evict(0, 0, positions, std::vector<float>{0, 0, 0, 0, 0}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{3});  // 5, 3 and 2: position 3
    // Rows in another order, and one taken back: sums follow the positions.
    const auto copy = policy->clone();
    const std::vector<int32_t> moved = {6, 2, 0, 5, 4};
    policy->evict(0, 0, moved, std::vector<float>{0, 0, 0, 0, 0}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{4});  // position 4 has 0, 2 has 3, 0 has 5
    copy->evict(0, 0, moved, std::vector<float>{0, 0, 0, 0, 9}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{1});  // the copy has sums of its own
    policy->reset();
    policy->evict(0, 0, moved, std::vector<float>{0, 1, 0, 0, 1}, slots);
    EXPECT_EQ(slots, std::vector<int32_t>{2});  // nothing is known of position 0 any more
}

TEST(DecodePolicy, NamesAndSizesAreChecked) {
    EXPECT_EQ(decode_policies().size(), 5U);
    EXPECT_EQ(make_decode_policy("default", 0, 1, 1), nullptr);
    EXPECT_EQ(make_decode_policy("none", 0, 1, 1), nullptr);
    const std::string unknown = error_of([] { (void)make_decode_policy("tovA", 4, 1, 1); });
    for (const std::string_view name : decode_policies()) {
        EXPECT_NE(unknown.find(name), std::string::npos) << unknown;
    }
    EXPECT_NE(error_of([] { (void)make_decode_policy("none", 4, 1, 1); }).find("takes no cap"), std::string::npos);
    EXPECT_NE(error_of([] { (void)make_decode_policy("h2o", 0, 1, 1); }).find("at least 1"), std::string::npos);
    const auto policy = make_decode_policy("tova", 2, 2, 1);
    std::vector<int32_t> slots;
    const std::vector<int32_t> positions = {0, 1, 2};
    EXPECT_NE(error_of([&] { policy->evict(2, 0, positions, std::vector<float>(3), slots); }).find("layer 2"),
              std::string::npos);
    EXPECT_NE(error_of([&] { policy->evict(0, 0, positions, std::vector<float>(2), slots); }).find("one per row"),
              std::string::npos);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_NE(error_of([&] {
                  policy->evict(0, 0, positions, std::vector<float>{0, nan, 0}, slots);
              }).find("not finite"),
              std::string::npos);
}

}  // namespace
}  // namespace kvsieve
