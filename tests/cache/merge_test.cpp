// SPDX-License-Identifier: MIT
// Rows that become the mean of several, in every row type: made from f16 rows when a layer is stored with its plan,
// from dequantised rows when a filled cache is compacted.
#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kHeads = 3, kTokens = 120, kDim = 64;

class MergeTest : public testing::TestWithParam<std::tuple<KvType, bool>> {};

/// Keeps about a third; every dropped row goes to a random kept one.
LayerPlan merging_plan(std::mt19937 & rng) {
    LayerPlan plan{{random_positions(kTokens, 0.3, rng)}};
    const std::vector<int32_t> & kept = plan.kept[0];
    for (int32_t p = 0; p < kTokens; ++p) {
        if (!std::binary_search(kept.begin(), kept.end(), p)) {
            plan.merged.push_back({p, kept[rng() % kept.size()]});
        }
    }
    return plan;
}

/// A stored row dequantised, still rotated.
std::vector<float> stored_row(const RaggedKvCache & cache, bool key, int32_t g, int32_t position) {
    const auto row = rows_of(cache, 0, g).at(position);
    std::vector<float> out(kDim);
    ggml_get_type_traits(ggml_type_of(cache.params().type))
        ->to_float((key ? row.first : row.second).data(), out.data(), kDim);
    return out;
}

/// `expected` quantised once by the cache itself, through append().
std::string quantised_once(KvType type, bool rotate, bool key, const std::vector<float> & expected) {
    RaggedKvCache one({1, 1, kDim, type, rotate});
    one.reserve(1);
    EXPECT_TRUE(one.append(0, {expected.data()}, {expected.data()}, 1, 0));
    const RowsByPosition rows = rows_of(one, 0, 0);
    return key ? rows.at(0).first : rows.at(0).second;
}

TEST_P(MergeTest, StoringTakesTheMeanOfF16RowsAndQuantisesOnce) {
    const auto & [type, rotate] = GetParam();
    std::mt19937 rng(3);
    const LayerData data = random_layer(kHeads, kTokens, kDim, 4);
    const LayerPlan plan = merging_plan(rng);
    RaggedKvCache cache({1, kHeads, kDim, type, rotate});
    store(cache, 0, data, &plan);
    for (int32_t g = 0; g < kHeads; ++g) {
        const RowsByPosition rows = rows_of(cache, 0, g);
        ASSERT_EQ(rows.size(), plan.kept[0].size());
        for (const int32_t anchor : plan.kept[0]) {
            for (const bool key : {true, false}) {
                std::vector<double> mean(kDim, 0.0);
                double n = 0;
                const auto add = [&](int32_t position) {
                    for (size_t c = 0; c < mean.size(); ++c) {
                        mean[c] += static_cast<double>(data.row(key, g, position)[c]);
                    }
                    ++n;
                };
                add(anchor);
                for (const Merge & merge : plan.merged) {
                    if (merge.into == anchor) {
                        add(merge.from);
                    }
                }
                std::vector<float> expected;
                for (const double x : mean) {
                    expected.push_back(static_cast<float>(x / n));
                }
                const auto & [k, v] = rows.at(anchor);
                EXPECT_EQ(key ? k : v, quantised_once(type, rotate, key, expected))
                    << g << " " << anchor << " of " << n;
            }
        }
    }
    expect_tight(cache);
}

TEST_P(MergeTest, CompactingTakesTheMeanOfStoredRows) {
    const auto & [type, rotate] = GetParam();
    std::mt19937 rng(5);
    const LayerData data = random_layer(kHeads, kTokens, kDim, 6);
    const LayerPlan plan = merging_plan(rng);
    RaggedKvCache all({1, kHeads, kDim, type, rotate});
    store(all, 0, data);
    RaggedKvCache cache = all.snapshot();
    cache.compact(0, plan);
    size_t n_alone = 0;
    for (int32_t g = 0; g < kHeads; ++g) {
        for (const int32_t anchor : plan.kept[0]) {
            for (const bool key : {true, false}) {
                std::vector<double> mean(kDim, 0.0);
                double n = 0;
                const auto add = [&](int32_t position) {
                    const std::vector<float> row = stored_row(all, key, g, position);
                    std::transform(row.begin(), row.end(), mean.begin(), mean.begin(),
                                   [](float x, double y) { return y + static_cast<double>(x); });
                    ++n;
                };
                add(anchor);
                for (const Merge & merge : plan.merged) {
                    if (merge.into == anchor) {
                        add(merge.from);
                    }
                }
                const auto [k, v] = rows_of(cache, 0, g).at(anchor);
                if (n == 1.0) {
                    ++n_alone;
                    EXPECT_EQ(rows_of(cache, 0, g).at(anchor), rows_of(all, 0, g).at(anchor)) << "not merged, moved";
                    continue;
                }
                std::vector<float> expected;
                for (const double x : mean) {
                    expected.push_back(static_cast<float>(x / n));
                }
                EXPECT_EQ(key ? k : v, quantised_once(type, false, key, expected)) << g << " " << anchor;
            }
        }
    }
    EXPECT_GT(n_alone, 0U);
    expect_tight(cache);
}

INSTANTIATE_TEST_SUITE_P(Types, MergeTest, testing::Combine(KVSIEVE_ALL_KV_TYPES, testing::Bool()),
                         [](const auto & variant) {
                             return std::string(kv_type_name(std::get<0>(variant.param))) +
                                    (std::get<1>(variant.param) ? "_rotated" : "");
                         });

TEST(MergeErrors, BadMergesChangeNothing) {
    const LayerData data = random_layer(kHeads, kTokens, kDim, 7);
    RaggedKvCache cache({1, kHeads, kDim, KvType::q8_0, true});
    store(cache, 0, data);
    const RowsByPosition original = rows_of(cache, 0, 1);
    const auto refuse = [&](const LayerPlan & plan, const std::vector<std::string> & words) {
        expect_error(ErrorCode::invalid_argument, words, [&] { cache.compact(0, plan); });
        RaggedKvCache empty({1, kHeads, kDim, KvType::q8_0, true});
        expect_error(ErrorCode::invalid_argument, words, [&] { store(empty, 0, data, &plan); });
        EXPECT_EQ(empty.bytes_held(), 0U);
        EXPECT_EQ(rows_of(cache, 0, 1), original);
    };
    refuse({{{0, 5}}, {{5, 0}}}, {"layer 0", "position 5 into 0", "dropped"});
    refuse({{{0, 5}}, {{4, 6}}}, {"4 into 6", "every KV head keeps"});
    refuse({{{0, 5}, {0, 5}, {0, 6}}, {{4, 5}}}, {"4 into 5"});
    refuse({{{0, 5}}, {{4, 0}, {3, 0}}}, {"3 into 0", "ascending"});
    refuse({{{0, 5}}, {{-1, 0}}}, {"-1 into 0"});
    const LayerPlan behind{{{0, 5}}, {{200, 0}}};
    expect_error(ErrorCode::invalid_argument, {"position 200", "does not hold"}, [&] { cache.compact(0, behind); });
    EXPECT_EQ(rows_of(cache, 0, 1), original);
}

}  // namespace
}  // namespace kvsieve::test
