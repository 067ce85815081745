// SPDX-License-Identifier: MIT
// Compaction moves rows bit for bit and nothing else.
#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kLayers = 3, kHeads = 4, kTokens = 300, kDim = 64;

class CompactTest : public testing::TestWithParam<KvType> {};

RaggedKvCache filled(KvType type) {
    RaggedKvCache cache({kLayers, kHeads, kDim, type, true});
    for (int32_t il = 0; il < kLayers; ++il) {
        store(cache, il, random_layer(kHeads, kTokens, kDim, static_cast<uint32_t>(il)));
    }
    return cache;
}

Plan random_plan(bool per_head, double share, std::mt19937 & rng) {
    Plan plan;
    for (int32_t il = 0; il < kLayers; ++il) {
        LayerPlan layer;
        for (int32_t g = 0; g < (per_head ? kHeads : 1); ++g) {
            layer.kept.push_back(random_positions(kTokens, share * (1.0 + 0.2 * g), rng));
        }
        plan.layers.push_back(layer);
    }
    return plan;
}

TEST_P(CompactTest, KeepsRowsBitForBit) {
    std::mt19937 rng(1);
    for (const bool per_head : {false, true}) {
        for (const double share : {0.0, 0.1, 0.5, 0.9, 1.0}) {
            RaggedKvCache cache = filled(GetParam());
            const RaggedKvCache all = cache.snapshot();
            const Plan plan = random_plan(per_head, share, rng);
            cache.compact(plan);
            uint64_t rows = 0;
            for (int32_t il = 0; il < kLayers; ++il) {
                for (int32_t g = 0; g < kHeads; ++g) {
                    const std::vector<int32_t> & kept = plan.layers[static_cast<size_t>(il)].of_head(g);
                    const auto positions = cache.positions(il, g);
                    ASSERT_TRUE(std::equal(positions.begin(), positions.end(), kept.begin(), kept.end()));
                    const RowsByPosition before = rows_of(all, il, g);
                    for (const auto & [position, row] : rows_of(cache, il, g)) {
                        ASSERT_EQ(row, before.at(position)) << il << " " << g << " " << position;
                    }
                    rows += kept.size();
                    EXPECT_EQ(cache.usage(kTokens).rows_of[static_cast<size_t>(il)][static_cast<size_t>(g)],
                              static_cast<int32_t>(kept.size()));
                }
            }
            const KvUsage usage = cache.usage(kTokens);
            EXPECT_EQ(usage.rows, rows);
            EXPECT_EQ(usage.bytes_held, rows * 2 * cache.row_bytes());
            EXPECT_EQ(usage.bytes_full_f16, uint64_t{kLayers} * kHeads * kTokens * kDim * 4);
            expect_tight(cache);
        }
    }
}

TEST_P(CompactTest, StoringWithAPlanIsStoringThenCompacting) {
    std::mt19937 rng(2);
    for (const bool per_head : {false, true}) {
        const Plan plan = random_plan(per_head, 0.3, rng);
        RaggedKvCache direct({kLayers, kHeads, kDim, GetParam(), true});
        RaggedKvCache later = filled(GetParam());
        for (int32_t il = 0; il < kLayers; ++il) {
            const LayerPlan & layer = plan.layers[static_cast<size_t>(il)];
            store(direct, il, random_layer(kHeads, kTokens, kDim, static_cast<uint32_t>(il)), &layer);
            later.compact(il, layer);
            for (int32_t g = 0; g < kHeads; ++g) {
                EXPECT_EQ(rows_of(direct, il, g), rows_of(later, il, g));
                const auto a = direct.positions(il, g), b = later.positions(il, g);
                EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
            }
        }
        expect_tight(direct);
    }
}

TEST_P(CompactTest, Twice) {
    RaggedKvCache cache = filled(GetParam());
    const RaggedKvCache all = cache.snapshot();
    cache.compact(1, {{{3, 5, 8, 100, 250, 299}}});
    cache.compact(1, {{{5}, {3, 8, 299}, {}, {100, 250}}});
    EXPECT_EQ(cache.n_rows(1, 2), 0);
    EXPECT_EQ(rows_of(cache, 1, 2).size(), 0U);
    EXPECT_EQ(rows_of(cache, 1, 1).at(8), rows_of(all, 1, 1).at(8));
    EXPECT_EQ(rows_of(cache, 1, 3).at(250), rows_of(all, 1, 3).at(250));
    EXPECT_EQ(cache.n_rows(0, 0), kTokens);
    EXPECT_EQ(cache.max_rows(), kTokens);
}

TEST_P(CompactTest, SnapshotIsIndependent) {
    RaggedKvCache cache = filled(GetParam());
    const RowsByPosition original = rows_of(cache, 2, 1);
    const RaggedKvCache copy = cache.snapshot();
    EXPECT_EQ(copy.bytes_reserved(), cache.bytes_reserved());
    cache.compact(2, {{{0, 299}}});
    cache.release();
    EXPECT_EQ(rows_of(copy, 2, 1), original);
    RaggedKvCache moved = copy.snapshot();
    cache = std::move(moved);
    EXPECT_EQ(rows_of(cache, 2, 1), original);
    // A copy can grow on its own.
    const std::vector<float> row(kHeads * kDim, 1.0F);
    cache.reserve(40);
    for (int32_t t = 0; t < 40; ++t) {
        ASSERT_TRUE(cache.append(2, {row.data()}, {row.data()}, 1, kTokens + t));
    }
    EXPECT_EQ(cache.n_rows(2, 1), kTokens + 40);
    EXPECT_EQ(copy.n_rows(2, 1), kTokens);
}

INSTANTIATE_TEST_SUITE_P(Types, CompactTest, KVSIEVE_ALL_KV_TYPES, type_of);

TEST(CompactErrors, BadPlansChangeNothing) {
    const LayerData data = random_layer(kHeads, kTokens, kDim, 0);
    RaggedKvCache cache = filled(KvType::q8_0);
    const RowsByPosition original = rows_of(cache, 1, 0);
    const auto refuse = [&](const LayerPlan & plan, const std::vector<std::string> & words) {
        expect_error(ErrorCode::invalid_argument, words, [&] { cache.compact(1, plan); });
        RaggedKvCache empty({kLayers, kHeads, kDim, KvType::f16, true});
        expect_error(ErrorCode::invalid_argument, {"layer 1"}, [&] { store(empty, 1, data, &plan); });
        EXPECT_EQ(empty.bytes_held(), 0U);
    };
    refuse({{{0, 1}, {0, 1}}}, {"layer 1", "2 lists", "expected 1 or 4"});
    refuse({{}}, {"0 lists"});
    refuse({{{0, 2, 2}}}, {"layer 1", "position 2 follows 2", "ascending"});
    refuse({{{5, 4}}}, {"position 4 follows 5"});
    refuse({{{-1, 4}}}, {"position -1"});
    refuse({{{0, 300}}}, {"layer 1", "position 300"});
    refuse({{{0}, {1}, {2}, {3, 1000}}}, {"position 1000"});
    Plan plan;
    plan.layers.resize(2, {{{0, 1}}});
    expect_error(ErrorCode::invalid_argument, {"2 layers", "has 3"}, [&] { cache.compact(plan); });
    plan.layers = {{{{0}}}, {{{0, 1}}}, {{{7, 6}}}};  // the last layer's is wrong: the first one stays too
    expect_error(ErrorCode::invalid_argument, {"layer 2"}, [&] { cache.compact(plan); });
    EXPECT_EQ(cache.n_rows(0, 0), kTokens);
    EXPECT_EQ(rows_of(cache, 1, 0), original);
    // A position that an earlier compaction dropped.
    cache.compact(1, {{{0, 10, 20}}});
    expect_error(ErrorCode::invalid_argument, {"layer 1", "position 15", "does not hold"}, [&] {
        cache.compact(1, {{{0, 15}}});
    });
    EXPECT_EQ(cache.n_rows(1, 3), 3);
}

}  // namespace
}  // namespace kvsieve::test
