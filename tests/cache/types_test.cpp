// SPDX-License-Identifier: MIT
// Row types that a plan gives to single heads: the same bytes as in a cache of that type, wherever they are quantised.
#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kHeads = 3, kDim = 64, kTokens = 200;
const std::vector<KvType> kMixed = {KvType::q4_0, KvType::f16, KvType::q8_0};

LayerPlan some_plan(uint32_t seed) {
    std::mt19937 rng(seed);
    LayerPlan plan{.kept = {}, .types = kMixed};
    for (const double share : {0.5, 0.02, 0.2}) {
        plan.kept.push_back(random_positions(kTokens, share, rng));
    }
    return plan;
}

RaggedKvCache f16_cache() {
    return RaggedKvCache({1, kHeads, kDim, KvType::f16});
}

/// Each head holds what the head of a cache of that type holds.
void expect_heads_of_their_types(const RaggedKvCache & cache, const LayerData & data, const LayerPlan & plan) {
    for (int32_t g = 0; g < kHeads; ++g) {
        const KvType type = plan.type_of_head(g);
        RaggedKvCache whole({1, kHeads, kDim, type});
        const LayerPlan rows{.kept = plan.kept};
        store(whole, 0, data, &rows);
        EXPECT_EQ(rows_of(cache, 0, g), rows_of(whole, 0, g)) << g;
        EXPECT_EQ(cache.k_rows(0, g).type, type);
        EXPECT_EQ(cache.k_rows(0, g).rotation, whole.k_rows(0, g).rotation);
        EXPECT_EQ(cache.k_rows(0, g).row_bytes, ggml_row_size(ggml_type_of(type), kDim));
    }
}

TEST(RowTypes, StoredOrCompactedTheyAreQuantisedOnce) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
        const LayerData data = random_layer(kHeads, kTokens, kDim, seed);
        const LayerPlan plan = some_plan(seed);
        RaggedKvCache stored = f16_cache(), compacted = f16_cache();
        store(stored, 0, data, &plan);
        store(compacted, 0, data);
        compacted.compact(0, plan);
        expect_heads_of_their_types(stored, data, plan);
        expect_heads_of_their_types(compacted, data, plan);
        EXPECT_EQ(stored.bytes_held(), compacted.bytes_held());
        EXPECT_EQ(stored.usage(kTokens).type_of, (std::vector<std::vector<KvType>>{kMixed}));
        expect_tight(compacted);
        expect_tight(stored);
    }
}

TEST(RowTypes, AFewRowsMayTakeMoreThanTheyDid) {
    // one f16 row takes 128 bytes; q8_0 comes in eights of 68
    const LayerData data = random_layer(kHeads, 4, kDim, 1);
    const LayerPlan plan{.kept = {{2}, {}, {1, 3}}, .types = {KvType::q8_0, KvType::q8_0, KvType::q4_0}};
    RaggedKvCache cache = f16_cache();
    store(cache, 0, data);
    cache.compact(0, plan);
    expect_heads_of_their_types(cache, data, plan);
}

TEST(RowTypes, NewRowsFollowTheHead) {
    const LayerData data = random_layer(kHeads, kTokens, kDim, 3), more = random_layer(kHeads, 40, kDim, 4);
    const LayerPlan plan = some_plan(3);
    RaggedKvCache cache = f16_cache();
    store(cache, 0, data, &plan);
    for (int32_t i = 0; i < 40; ++i) {
        cache.reserve(1);
        const auto row = [&](bool key) {
            return F32Rows{more.row(key, 0, i).data(), static_cast<size_t>(more.n_tokens) * kDim, kDim};
        };
        ASSERT_TRUE(cache.append(0, row(true), row(false), 1, kTokens + i));
    }
    for (int32_t g = 0; g < kHeads; ++g) {
        RaggedKvCache whole({1, kHeads, kDim, kMixed[static_cast<size_t>(g)]});
        store(whole, 0, more);
        for (int32_t i = 0; i < 40; ++i) {
            EXPECT_EQ(rows_of(cache, 0, g).at(kTokens + i), rows_of(whole, 0, g).at(i));
        }
    }
    RaggedKvCache copy = cache.snapshot();
    const std::vector<int32_t> gone = {7, 0};
    copy.remove(0, 2, gone);
    cache.remove(0, 2, gone);
    for (int32_t g = 0; g < kHeads; ++g) {
        EXPECT_EQ(rows_of(copy, 0, g), rows_of(cache, 0, g));
    }
    cache.truncate(kTokens);
    cache.release();
    EXPECT_EQ(cache.k_rows(0, 0).type, KvType::f16);
}

TEST(RowTypes, WhatDoesNotFitIsRefusedAndNothingChanges) {
    const LayerData data = random_layer(kHeads, kTokens, kDim, 5);
    RaggedKvCache cache = f16_cache();
    store(cache, 0, data);
    LayerPlan plan = some_plan(5);
    plan.types = {KvType::q8_0, KvType::f16};
    expect_error(ErrorCode::invalid_argument, {"2 row types", "one per KV head: 3"}, [&] { cache.compact(0, plan); });
    EXPECT_EQ(cache.n_rows(0, 0), kTokens);
    plan.types = {KvType::q8_0};
    cache.compact(0, plan);
    plan.types = {KvType::q4_0};
    expect_error(ErrorCode::invalid_argument, {"wants rows of q4_0", "are q8_0, expected f16"},
                 [&] { cache.compact(0, plan); });
    RaggedKvCache odd({1, 1, 48, KvType::f16});
    const LayerPlan quantised{.kept = {{0, 1}}, .types = {KvType::q4_0}};
    expect_error(ErrorCode::invalid_argument, {"q4_0", "head size of 48"},
                 [&] { store(odd, 0, random_layer(1, 3, 48, 1), &quantised); });
}

}  // namespace
}  // namespace kvsieve::test
