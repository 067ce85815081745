// SPDX-License-Identifier: MIT
// Eviction while decoding against a naive model: a list from which an element is erased.
#include <algorithm>
#include <set>

#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kHeads = 2, kDim = 32;

/// The row of a position is known from the position alone.
std::vector<float> token_rows(int32_t first, int32_t n, float factor) {
    std::vector<float> rows;
    for (int32_t t = 0; t < n; ++t) {
        for (int32_t g = 0; g < kHeads; ++g) {
            for (int32_t i = 0; i < kDim; ++i) {
                rows.push_back(factor * static_cast<float>((first + t) % 1024 + g) + (i == 3 ? 0.5F : 0.0F));
            }
        }
    }
    return rows;
}

void append(RaggedKvCache & cache, int32_t il, int32_t first, int32_t n) {
    const std::vector<float> k = token_rows(first, n, 1.0F), v = token_rows(first, n, -1.0F);
    ASSERT_TRUE(cache.append(il, {k.data()}, {v.data()}, n, first));
}

/// Positions are exactly the model's and every row is its position's.
void expect_rows(const RaggedKvCache & cache, int32_t il, const std::vector<int32_t> & logical) {
    for (int32_t g = 0; g < kHeads; ++g) {
        const auto positions = cache.positions(il, g);
        std::vector<int32_t> sorted(positions.begin(), positions.end());
        std::sort(sorted.begin(), sorted.end());
        ASSERT_EQ(sorted, logical);
        std::vector<int32_t> slots(positions.size());
        std::iota(slots.begin(), slots.end(), 0);
        std::vector<float> k(slots.size() * kDim), v(k.size());
        cache.read_rows_f32(il, g, slots, k, v);
        for (size_t i = 0; i < slots.size(); ++i) {
            const auto want = static_cast<float>(positions[i] % 1024 + g);
            ASSERT_EQ(k[i * kDim], want);
            ASSERT_EQ(v[i * kDim], -want);
        }
    }
}

TEST(Ring, ConstantSlotOneTokenAtATime) {
    std::mt19937 rng(3);
    for (int32_t trial = 0; trial < 20; ++trial) {
        const int32_t n_prompt = std::uniform_int_distribution<int32_t>(1, 120)(rng);
        const int32_t slot = std::uniform_int_distribution<int32_t>(0, n_prompt)(rng);
        RaggedKvCache cache({1, kHeads, kDim, KvType::f16, true});
        std::vector<int32_t> logical;
        cache.reserve(n_prompt);
        append(cache, 0, 0, n_prompt);
        for (int32_t t = 0; t < n_prompt; ++t) {
            logical.push_back(t);
        }
        std::bernoulli_distribution evicts(trial % 2 == 0 ? 0.8 : 0.5);
        for (int32_t step = 0; step < 2000; ++step) {
            cache.reserve(1);
            append(cache, 0, n_prompt + step, 1);
            logical.push_back(n_prompt + step);
            if (evicts(rng)) {
                cache.evict(0, slot);
                logical.erase(logical.begin() + slot);
            }
            if (step % 97 == 0 || step < 10) {
                expect_rows(cache, 0, logical);
                expect_tight(cache);
            }
        }
        expect_rows(cache, 0, logical);
    }
}

// While as many rows leave as come, the newest row takes the oldest one's place and no other row moves.
TEST(Ring, NothingElseMoves) {
    RaggedKvCache cache({1, kHeads, kDim, KvType::q8_0, true});
    cache.reserve(101);
    append(cache, 0, 0, 100);
    for (int32_t step = 0; step < 300; ++step) {
        const std::vector<int32_t> before(cache.positions(0, 0).begin(), cache.positions(0, 0).end());
        const uint8_t * data = cache.k_rows(0, 0).data;
        cache.reserve(1);
        append(cache, 0, 100 + step, 1);
        cache.evict(0, 75);
        const auto after = cache.positions(0, 0);
        ASSERT_EQ(after.size(), 100U);
        size_t changed = 0;
        for (size_t i = 0; i < 100; ++i) {
            if (after[i] != before[i]) {
                ++changed;
                EXPECT_EQ(after[i], 100 + step);
                EXPECT_EQ(i, static_cast<size_t>(75 + step % 25));
            }
        }
        EXPECT_EQ(changed, 1U);
        EXPECT_EQ(cache.k_rows(0, 0).data, data);
    }
}

TEST(Ring, SeveralTokensAtOnceAndAnySlot) {
    std::mt19937 rng(4);
    for (int32_t trial = 0; trial < 30; ++trial) {
        const bool any_slot = trial % 3 == 2;
        const int32_t n_prompt = std::uniform_int_distribution<int32_t>(2, 90)(rng);
        int32_t slot = std::uniform_int_distribution<int32_t>(0, n_prompt - 1)(rng);
        RaggedKvCache cache({1, kHeads, kDim, KvType::f16, true});
        std::vector<int32_t> logical(static_cast<size_t>(n_prompt));
        std::iota(logical.begin(), logical.end(), 0);
        cache.reserve(n_prompt);
        append(cache, 0, 0, n_prompt);
        int32_t position = n_prompt;
        for (int32_t step = 0; step < 400; ++step) {
            const int32_t m = std::uniform_int_distribution<int32_t>(1, step % 50 == 0 ? 70 : 4)(rng);
            cache.reserve(m);
            append(cache, 0, position, m);
            for (int32_t i = 0; i < m; ++i) {
                logical.push_back(position++);
            }
            if (any_slot) {
                slot = std::uniform_int_distribution<int32_t>(0, static_cast<int32_t>(logical.size()) - 1)(rng);
            }
            const int32_t most = std::min(m, static_cast<int32_t>(logical.size()) - slot);
            const int32_t n = std::uniform_int_distribution<int32_t>(0, most)(rng);
            if (step % 2 == 0) {
                cache.evict(0, slot, n);
            } else {
                for (int32_t i = 0; i < n; ++i) {
                    cache.evict(0, slot);
                }
            }
            logical.erase(logical.begin() + slot, logical.begin() + slot + n);
            if (step % 40 == 0) {
                expect_rows(cache, 0, logical);
                expect_tight(cache);
            }
            if (step % 100 == 99) {
                // Compaction after evictions: rows in ascending positions again.
                std::vector<int32_t> kept;
                for (const int32_t p : logical) {
                    if (std::bernoulli_distribution(0.8)(rng)) {
                        kept.push_back(p);
                    }
                }
                cache.compact(0, {{kept}});
                logical = kept;
                const auto positions = cache.positions(0, 1);
                ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end()));
                expect_rows(cache, 0, logical);
                slot = std::min(slot, static_cast<int32_t>(logical.size()) - 1);
            }
        }
        expect_rows(cache, 0, logical);
    }
}

// The rule as the policy layer plays it, on several layers with their own budgets.
TEST(Ring, FollowsSimulateDecode) {
    const int32_t n_prompt = 160, n_steps = 700;
    std::mt19937 rng(6);
    Plan plan;
    for (const double rho : {0.0, 0.1, 0.5, 0.8, 0.97}) {
        const std::vector<int32_t> kept = random_positions(n_prompt, 1.0 - rho, rng);
        const auto n_kept = static_cast<int32_t>(kept.size());
        plan.layers.push_back({{kept}});
        plan.decode.push_back({rho, n_kept > 25 ? n_kept - 25 : n_kept / 2});
    }
    const auto n_layer = static_cast<int32_t>(plan.layers.size());
    RaggedKvCache cache({n_layer, kHeads, kDim, KvType::f16, true});
    cache.reserve(n_prompt);
    std::vector<std::set<int32_t>> want(plan.layers.size());
    for (int32_t il = 0; il < n_layer; ++il) {
        append(cache, il, 0, n_prompt);
        const std::vector<int32_t> & kept = plan.layers[static_cast<size_t>(il)].kept[0];
        want[static_cast<size_t>(il)] = std::set<int32_t>(kept.begin(), kept.end());
    }
    cache.compact(plan);
    const DecodeTrace trace = simulate_decode(plan, n_prompt, n_steps);
    std::vector<size_t> seen(plan.layers.size());
    for (int32_t step = 1; step <= n_steps; ++step) {
        cache.reserve(1);
        for (int32_t il = 0; il < n_layer; ++il) {
            const auto at = static_cast<size_t>(il);
            const DecodeRule & rule = plan.decode[at];
            append(cache, il, n_prompt + step - 1, 1);
            want[at].insert(n_prompt + step - 1);
            if (rule.n_over(cache.n_rows(il, 0), n_prompt + step) > 0) {
                cache.evict(il, rule.drop_slot);
            }
            while (seen[at] < trace.removed[at].size() && trace.removed[at][seen[at]].step == step) {
                want[at].erase(trace.removed[at][seen[at]++].position);
            }
            const auto held = cache.positions(il, 1);
            ASSERT_EQ(std::set<int32_t>(held.begin(), held.end()), want[at]) << "layer " << il << " step " << step;
        }
    }
    for (int32_t il = 0; il < n_layer; ++il) {
        EXPECT_EQ(cache.n_rows(il, 0), trace.final_len[static_cast<size_t>(il)]);
        expect_rows(cache, il, {want[static_cast<size_t>(il)].begin(), want[static_cast<size_t>(il)].end()});
    }
    EXPECT_GT(trace.removed[4].size(), 600U);
}

TEST(Ring, EvictedToNothingAndOnAgain) {
    RaggedKvCache cache({1, kHeads, kDim, KvType::f16, true});
    cache.reserve(200);
    append(cache, 0, 0, 200);
    cache.evict(0, 0, 200);
    EXPECT_EQ(cache.n_rows(0, 0), 0);
    expect_tight(cache);
    cache.reserve(3);
    append(cache, 0, 200, 3);
    expect_rows(cache, 0, {200, 201, 202});
    cache.evict(0, 2);  // the newest itself
    expect_rows(cache, 0, {200, 201});
}

TEST(Ring, RefusesWhatCannotBeMeant) {
    RaggedKvCache cache({2, kHeads, kDim, KvType::f16, true});
    cache.reserve(10);
    append(cache, 1, 0, 10);
    expect_error(ErrorCode::invalid_argument, {"1 rows at slot 10", "layer 1", "10 rows"}, [&] { cache.evict(1, 10); });
    expect_error(ErrorCode::invalid_argument, {"slot -1"}, [&] { cache.evict(1, -1); });
    expect_error(ErrorCode::invalid_argument, {"4 rows at slot 7"}, [&] { cache.evict(1, 7, 4); });
    expect_error(ErrorCode::invalid_argument, {"layer 2"}, [&] { cache.evict(2, 0); });
    EXPECT_EQ(cache.n_rows(1, 0), 10);
    cache.compact(1, {{{0, 1}, {0, 1, 2}}});
    expect_error(ErrorCode::invalid_argument, {"same number of rows", "head 0 has 2", "head 1 has 3"},
                 [&] { cache.evict(1, 0); });
}

TEST(Truncate, TakesNewTokensBack) {
    std::mt19937 rng(8);
    for (const bool evicts : {false, true}) {
        RaggedKvCache cache({1, kHeads, kDim, KvType::f16, true});
        cache.reserve(100);
        append(cache, 0, 0, 100);
        const std::vector<int32_t> kept = random_positions(100, 0.5, rng);
        cache.compact(0, {{kept}});
        std::vector<int32_t> logical = kept;
        for (int32_t t = 100; t < 150; ++t) {
            cache.reserve(1);
            append(cache, 0, t, 1);
            logical.push_back(t);
            if (evicts) {
                cache.evict(0, 20);
                logical.erase(logical.begin() + 20);
            }
        }
        cache.reserve(300);
        append(cache, 0, 150, 300);
        cache.truncate(150);
        expect_rows(cache, 0, logical);
        expect_tight(cache);
        cache.reserve(1);
        append(cache, 0, 150, 1);  // the position is free again
        logical.push_back(150);
        expect_rows(cache, 0, logical);
        cache.truncate(1000);
        expect_rows(cache, 0, logical);
        cache.truncate(0);
        EXPECT_EQ(cache.bytes_held(), 0U);
    }
}

TEST(Truncate, PerHeadRows) {
    RaggedKvCache cache({1, kHeads, kDim, KvType::f16, true});
    cache.reserve(20);
    append(cache, 0, 0, 20);
    cache.compact(0, {{{0, 5, 10, 19}, {1, 2, 3, 19}}});
    cache.truncate(5);
    EXPECT_EQ(cache.n_rows(0, 0), 1);
    EXPECT_EQ(cache.n_rows(0, 1), 3);
    cache.release();
    cache.reserve(20);
    append(cache, 0, 0, 20);
    cache.compact(0, {{{0, 5, 10, 19}, {1, 2, 3, 19}}});
    cache.evict(0, 1);
    expect_error(ErrorCode::invalid_argument, {"position 5", "layer 0"}, [&] { cache.truncate(5); });
    EXPECT_EQ(cache.n_rows(0, 1), 3);
}

}  // namespace
}  // namespace kvsieve::test
