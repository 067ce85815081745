// SPDX-License-Identifier: MIT
// Eviction of single rows by slot, per head, against a list of positions; layers that hold only some of the prompt.
#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kHeads = 3, kDim = 64;

class RemoveTest : public testing::TestWithParam<KvType> {};

std::vector<float> random_row(std::mt19937 & rng) {
    std::normal_distribution<float> normal;
    std::vector<float> row(kHeads * kDim);
    std::generate(row.begin(), row.end(), [&] { return normal(rng); });
    return row;
}

TEST_P(RemoveTest, RandomEvictionsPerHeadUnderACap) {
    constexpr int32_t kPrompt = 50, kCap = 40, kSteps = 300;
    std::mt19937 rng(8);
    RaggedKvCache cache({1, kHeads, kDim, GetParam(), true});
    store(cache, 0, random_layer(kHeads, kPrompt, kDim, 9));
    std::vector<RowsByPosition> expected;
    for (int32_t g = 0; g < kHeads; ++g) {
        expected.push_back(rows_of(cache, 0, g));
    }
    for (int32_t step = 0; step < kSteps; ++step) {
        const std::vector<float> row = random_row(rng);
        cache.reserve(1);
        ASSERT_TRUE(cache.append(0, {row.data()}, {row.data()}, 1, kPrompt + step));
        if (step == 100) {  // a refused turn in between
            cache.truncate(kPrompt + step);
            cache.reserve(1);
            ASSERT_TRUE(cache.append(0, {row.data()}, {row.data()}, 1, kPrompt + step));
        }
        for (int32_t g = 0; g < kHeads; ++g) {
            const RowsByPosition now = rows_of(cache, 0, g);
            expected[static_cast<size_t>(g)].emplace(kPrompt + step, now.at(kPrompt + step));
            ASSERT_EQ(now, expected[static_cast<size_t>(g)]) << step;
            std::vector<int32_t> slots;
            for (int32_t n = cache.n_rows(0, g); n > kCap + g; --n) {
                slots.push_back(n - 1);
            }
            if (!slots.empty() && rng() % 4 != 0) {  // any slot, often the newest one
                slots.back() = static_cast<int32_t>(rng() % static_cast<uint32_t>(slots.back() + 1));
            }
            for (const int32_t slot : slots) {
                expected[static_cast<size_t>(g)].erase(cache.positions(0, g)[static_cast<size_t>(slot)]);
            }
            cache.remove(0, g, slots);
            ASSERT_EQ(rows_of(cache, 0, g), expected[static_cast<size_t>(g)]) << step;
            ASSERT_LE(cache.n_rows(0, g), kCap + g);
        }
        expect_tight(cache);
    }
    const RaggedKvCache copy = cache.snapshot();
    expect_error(ErrorCode::invalid_argument, {"rank", "layer 0"}, [&] { cache.evict(0, 0); });

    LayerPlan plan;  // compaction sorts
    for (int32_t g = 0; g < kHeads; ++g) {
        std::vector<int32_t> kept;
        for (const auto & [position, row] : expected[static_cast<size_t>(g)]) {
            if (position % 3 != 0) {
                kept.push_back(position);
            }
        }
        plan.kept.push_back(kept);
    }
    cache.compact(0, plan);
    for (int32_t g = 0; g < kHeads; ++g) {
        const auto positions = cache.positions(0, g);
        EXPECT_TRUE(std::equal(positions.begin(), positions.end(), plan.of_head(g).begin(), plan.of_head(g).end()));
        for (const auto & [position, row] : rows_of(cache, 0, g)) {
            EXPECT_EQ(row, expected[static_cast<size_t>(g)].at(position));
        }
        EXPECT_EQ(rows_of(copy, 0, g), expected[static_cast<size_t>(g)]);
    }
}

TEST_P(RemoveTest, LayerOfSomePositions) {
    const LayerData data = random_layer(kHeads, 5, kDim, 10);
    const std::vector<int32_t> positions{0, 3, 4, 20, 30};
    const LayerPlan plan{{{3, 30}}, {{4, 3}}};
    for (const LayerPlan * kept : {static_cast<const LayerPlan *>(nullptr), &plan}) {
        RaggedKvCache cache({1, kHeads, kDim, GetParam(), true});
        cache.store_layer(0, {data.k16.data()}, {data.v16.data()}, 5, kept, positions);
        RaggedKvCache dense({1, kHeads, kDim, GetParam(), true});
        const LayerPlan dense_plan{{{1, 4}}, {{2, 1}}};
        dense.store_layer(0, {data.k16.data()}, {data.v16.data()}, 5, kept != nullptr ? &dense_plan : nullptr);
        for (int32_t g = 0; g < kHeads; ++g) {
            const RowsByPosition rows = rows_of(cache, 0, g);
            ASSERT_EQ(rows.size(), kept != nullptr ? 2U : 5U);
            for (const auto & [position, row] : rows_of(dense, 0, g)) {
                EXPECT_EQ(rows.at(positions[static_cast<size_t>(position)]), row);
            }
        }
        cache.reserve(1);
        const std::vector<float> row(kHeads * kDim, 1.0F);
        EXPECT_FALSE(cache.append(0, {row.data()}, {row.data()}, 1, 30)) << "not behind the rows held";
        EXPECT_TRUE(cache.append(0, {row.data()}, {row.data()}, 1, 31));
        expect_tight(cache);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, RemoveTest, KVSIEVE_ALL_KV_TYPES, type_of);

TEST(RemoveErrors, BadSlotsAndPositionsChangeNothing) {
    const LayerData data = random_layer(kHeads, 5, kDim, 11);
    RaggedKvCache cache({2, kHeads, kDim, KvType::f16, true});
    store(cache, 0, data);
    const RowsByPosition original = rows_of(cache, 0, 1);
    for (const std::vector<int32_t> & slots : std::vector<std::vector<int32_t>>{{5}, {-1}, {1, 2}, {3, 3}}) {
        expect_error(ErrorCode::invalid_argument, {"layer 0", "KV head 1", "descending slots"},
                     [&] { cache.remove(0, 1, slots); });
    }
    EXPECT_EQ(rows_of(cache, 0, 1), original);
    const auto refuse = [&](const std::vector<int32_t> & positions, const LayerPlan * plan,
                            const std::vector<std::string> & words) {
        expect_error(ErrorCode::invalid_argument, words,
                     [&] { cache.store_layer(1, {data.k16.data()}, {data.v16.data()}, 5, plan, positions); });
        EXPECT_EQ(cache.n_rows(1, 0), 0);
    };
    refuse({1, 2, 3}, nullptr, {"3 positions of 5 rows"});
    refuse({1, 2, 3, 3, 4}, nullptr, {"position 3 follows 3"});
    const LayerPlan other{{{1, 5}}};
    refuse({1, 2, 3, 4, 6}, &other, {"position 5", "not among the rows given"});
    const LayerPlan merging{{{1, 6}}, {{5, 1}}};
    refuse({1, 2, 3, 4, 6}, &merging, {"position 5", "not among the rows given"});
    cache.evict(0, 1);
    expect_error(ErrorCode::invalid_argument, {"evicted by rank"},
                 [&] { cache.remove(0, 0, std::vector<int32_t>{0}); });
}

}  // namespace
}  // namespace kvsieve::test
