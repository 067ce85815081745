// SPDX-License-Identifier: MIT
// Random calls on heads of different lengths against a map of rows; every row is compared bit for bit.
#include <algorithm>

#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kLayers = 2, kHeads = 3, kDim = 64;

class FuzzTest : public testing::TestWithParam<KvType> {};

struct World {
    RaggedKvCache cache;
    std::map<std::pair<int32_t, int32_t>, RowsByPosition> rows;  // by layer and head
    int32_t next = 0;                                            // position of the next token

    void expect_equal() const {
        uint64_t n = 0;
        for (const auto & [where, want] : rows) {
            ASSERT_EQ(rows_of(cache, where.first, where.second), want);
            n += want.size();
        }
        ASSERT_EQ(cache.bytes_held(), n * 2 * cache.row_bytes());
    }
};

void add_tokens(World & world, int32_t n, std::mt19937 & rng) {
    std::normal_distribution<float> normal;
    std::vector<float> k(static_cast<size_t>(n * kHeads * kDim)), v(k.size());
    for (size_t i = 0; i < k.size(); ++i) {
        k[i] = normal(rng);
        v[i] = normal(rng);
    }
    world.cache.reserve(n);
    for (int32_t il = 0; il < kLayers; ++il) {
        ASSERT_TRUE(world.cache.append(il, {k.data()}, {v.data()}, n, world.next));
        for (int32_t g = 0; g < kHeads; ++g) {
            const RowsByPosition now = rows_of(world.cache, il, g);
            for (int32_t p = world.next; p < world.next + n; ++p) {
                world.rows[{il, g}].emplace(p, now.at(p));
            }
        }
    }
    world.next += n;
}

void compact(World & world, bool per_head, std::mt19937 & rng) {
    const auto il = static_cast<int32_t>(rng() % kLayers);
    LayerPlan plan;
    for (int32_t g = 0; g < kHeads; ++g) {
        std::bernoulli_distribution keep(static_cast<double>(rng() % 11) / 10.0);
        std::vector<int32_t> kept;
        for (const auto & row : world.rows[{il, per_head ? g : 0}]) {
            bool everywhere = true;
            for (int32_t other = 0; other < kHeads && !per_head; ++other) {
                everywhere = everywhere && world.rows[{il, other}].contains(row.first);
            }
            if (everywhere && keep(rng)) {
                kept.push_back(row.first);
            }
        }
        plan.kept.push_back(kept);
        if (!per_head) {
            break;
        }
    }
    world.cache.compact(il, plan);
    for (int32_t g = 0; g < kHeads; ++g) {
        const std::vector<int32_t> & kept = plan.of_head(g);
        std::erase_if(world.rows[{il, g}],
                      [&](const auto & row) { return !std::binary_search(kept.begin(), kept.end(), row.first); });
    }
}

TEST_P(FuzzTest, RandomCalls) {
    for (uint32_t seed = 0; seed < 12; ++seed) {
        std::mt19937 rng(seed);
        World world{RaggedKvCache({kLayers, kHeads, kDim, GetParam(), true}), {}, 0};
        for (int32_t step = 0; step < 150; ++step) {
            switch (rng() % 8) {
                case 0:
                case 1:
                case 2:
                    add_tokens(world, 1, rng);
                    break;
                case 3:
                    add_tokens(world, static_cast<int32_t>(rng() % 60), rng);
                    break;
                case 4:
                    compact(world, seed % 3 == 0, rng);
                    break;
                case 5: {
                    const auto il = static_cast<int32_t>(rng() % kLayers);
                    const int32_t len = world.cache.n_rows(il, 0);
                    if (len != world.cache.n_rows(il, 1) || len != world.cache.n_rows(il, 2) || len == 0) {
                        break;
                    }
                    const auto slot = static_cast<int32_t>(rng() % static_cast<uint32_t>(len));
                    const auto n = static_cast<int32_t>(rng() % static_cast<uint32_t>(std::min(len - slot, 40) + 1));
                    world.cache.evict(il, slot, n);
                    for (int32_t g = 0; g < kHeads; ++g) {
                        RowsByPosition & rows = world.rows[{il, g}];
                        const auto first = std::next(rows.begin(), slot);
                        rows.erase(first, std::next(first, n));
                    }
                    break;
                }
                case 6: {
                    if (world.next == 0 || seed % 3 == 0) {
                        break;
                    }
                    const int32_t position = world.next - static_cast<int32_t>(rng() % 20);
                    world.cache.truncate(position);
                    world.next = std::clamp(position, 0, world.next);
                    for (auto & rows : world.rows) {
                        std::erase_if(rows.second, [&](const auto & row) { return row.first >= position; });
                    }
                    break;
                }
                default: {
                    RaggedKvCache copy = world.cache.snapshot();
                    world.cache = std::move(copy);
                }
            }
            expect_tight(world.cache);
            if (step % 5 == 0) {
                world.expect_equal();
            }
            if (HasFatalFailure()) {
                FAIL() << "seed " << seed << " step " << step;
            }
        }
        world.expect_equal();
    }
}

INSTANTIATE_TEST_SUITE_P(Types, FuzzTest, KVSIEVE_ALL_KV_TYPES, type_of);

}  // namespace
}  // namespace kvsieve::test
