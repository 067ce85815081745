// SPDX-License-Identifier: MIT
// Memory really comes and goes: pages, mappings, growth.
#include <fstream>

#include "cache/cache_test_util.h"
#include "policy/process_memory.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KVSIEVE_TEST_SANITIZED 1
#else
#define KVSIEVE_TEST_SANITIZED 0
#endif

namespace kvsieve::test {
namespace {

size_t n_mappings() {
    std::ifstream maps("/proc/self/maps");
    size_t n = 0;
    for (std::string line; std::getline(maps, line);) {
        ++n;
    }
    return n;
}

std::vector<int32_t> every(int32_t step, int32_t n) {
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < n; i += step) {
        positions.push_back(i);
    }
    return positions;
}

// 300 MiB of rows, of which a fifth stays.
TEST(Memory, ResidentBytesFallWithCompaction) {
    const int32_t n_layer = 12, n_head = 4, d = 128, n = 12800;
    RaggedKvCache cache({n_layer, n_head, d, KvType::f16, true});
    const LayerData data = random_layer(n_head, n, d, 1);
    const uint64_t before = resident_bytes();
    for (int32_t il = 0; il < n_layer; ++il) {
        store(cache, il, data);
    }
    const uint64_t full = resident_bytes();
    EXPECT_EQ(cache.bytes_held(), 300ULL << 20);
    EXPECT_GE(full - before, 300ULL << 20);
    expect_tight(cache);
    Plan plan;
    plan.layers.resize(n_layer, {{every(5, n)}});
    cache.compact(plan);
    [[maybe_unused]] const uint64_t compacted = resident_bytes();  // a sanitizer keeps pages of its own
    EXPECT_EQ(cache.bytes_held(), 60ULL << 20);
    expect_tight(cache);
    EXPECT_LE(cache.bytes_reserved(), 65ULL << 20);
#if !KVSIEVE_TEST_SANITIZED
    EXPECT_GE(full - compacted, 235ULL << 20);
    EXPECT_LE(compacted - before, 70ULL << 20);
#endif
    cache.release();
    EXPECT_EQ(cache.bytes_reserved(), 0U);
#if !KVSIEVE_TEST_SANITIZED
    EXPECT_LE(resident_bytes(), before + (8ULL << 20));
#endif
}

// Where it is known how far extents grow, spare rows end there; more rows than that still find room.
TEST(Memory, NoSpareRowsBehindWhatIsExpected) {
    const int32_t n_layer = 2, n_head = 3, d = 64, n = 100;
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        RaggedKvCache cache({n_layer, n_head, d, type, true}), free({n_layer, n_head, d, type, true});
        const LayerData data = random_layer(n_head, n, d, 1);
        const int32_t unit = row_unit(cache.row_bytes());
        const std::vector<int32_t> most = {108, 120, 131};
        for (int32_t il = 0; il < n_layer; ++il) {
            store(cache, il, data);
            store(free, il, data);
            cache.expect_rows(il, most);
        }
        uint64_t rows = 0;  // that a layer may take
        for (const int32_t m : most) {
            rows += static_cast<uint64_t>((m + unit - 1) / unit * unit);
        }
        const std::vector<float> token(static_cast<size_t>(n_head) * d, 0.5F);
        for (int32_t i = 0; i < 50; ++i) {
            if (n + i <= 108) {  // before and after each row as expected
                EXPECT_LE(cache.bytes_reserved(), n_layer * page_round(2 * rows * cache.row_bytes()));
                EXPECT_LE(cache.index_bytes(), n_layer * rows * sizeof(int32_t));
            }
            for (RaggedKvCache * one : {&cache, &free}) {
                one->reserve(1);
                for (int32_t il = 0; il < n_layer; ++il) {
                    ASSERT_TRUE(one->append(il, {token.data()}, {token.data()}, 1, n + i));
                }
            }
        }
        for (int32_t il = 0; il < n_layer; ++il) {
            for (int32_t g = 0; g < n_head; ++g) {
                EXPECT_EQ(rows_of(cache, il, g), rows_of(free, il, g));
            }
        }
        EXPECT_THROW(cache.expect_rows(0, std::vector<int32_t>{1}), Error);
    }
}

TEST(Memory, PeakStaysLowWhenOnlyKeptRowsAreStored) {
    const int32_t n_layer = 12, n_head = 4, d = 128, n = 12800;
    RaggedKvCache cache({n_layer, n_head, d, KvType::f16, true});
    const LayerData data = random_layer(n_head, n, d, 1);
    const LayerPlan plan = {{every(10, n)}};
    const uint64_t before = resident_bytes();
    uint64_t peak = before;
    for (int32_t il = 0; il < n_layer; ++il) {
        store(cache, il, data, &plan);
        peak = std::max(peak, resident_bytes());
    }
    EXPECT_EQ(cache.bytes_held(), 30ULL << 20);
#if !KVSIEVE_TEST_SANITIZED
    EXPECT_LE(peak - before, 40ULL << 20);
#endif
}

TEST(Memory, FlatOverManyCycles) {
    const int32_t n = 800;
    RaggedKvCache cache({4, 4, 64, KvType::q8_0, true});
    const LayerData data = random_layer(4, n, 64, 2);
    const LayerPlan plan = {{every(3, n)}};
    uint64_t after_first = 0;
    for (int32_t cycle = 0; cycle < 100; ++cycle) {
        for (int32_t il = 0; il < 4; ++il) {
            store(cache, il, data);
            cache.compact(il, plan);
        }
        cache.release();
        EXPECT_EQ(cache.bytes_reserved(), 0U);
        if (cycle == 4) {
            after_first = resident_bytes();
        }
    }
#if !KVSIEVE_TEST_SANITIZED
    EXPECT_LE(resident_bytes(), after_first + (2ULL << 20));
#else
    EXPECT_GT(after_first, 0U);
#endif
}

TEST(Memory, OneMappingPerLayerAtMost) {
    const LayerData data = random_layer(8, 50, 32, 3);
    const LayerPlan plan = {{every(2, 50)}};
    const size_t before = n_mappings();
    std::vector<RaggedKvCache> caches;
    for (int32_t i = 0; i < 50; ++i) {
        caches.emplace_back(KvCacheParams{6, 8, 32, KvType::q4_0, true});
        for (int32_t il = 0; il < 6; ++il) {
            store(caches.back(), il, data);
            caches.back().compact(il, plan);
        }
    }
    const size_t n_allocator = KVSIEVE_TEST_SANITIZED ? 100 : 16;  // a sanitizer's allocator maps more for itself
    EXPECT_LE(n_mappings(), before + 50 * 6 + n_allocator);
    for (const RaggedKvCache & cache : caches) {
        EXPECT_EQ(cache.n_rows(5, 7), 25);
    }
}

TEST(Growth, KeepsEveryRowOfRaggedHeads) {
    const int32_t n_layer = 2, n_head = 3, d = 64;
    for (const KvType type : {KvType::f16, KvType::q4_0}) {
        RaggedKvCache cache({n_layer, n_head, d, type, true});
        const LayerData data = random_layer(n_head, 500, d, 4);
        store(cache, 0, data);
        store(cache, 1, data);
        cache.compact(0, {{every(2, 500), every(50, 500), {}}});
        cache.compact(1, {{every(100, 500), every(3, 500), every(7, 500)}});
        std::vector<RowsByPosition> rows;
        for (int32_t i = 0; i < n_layer * n_head; ++i) {
            rows.push_back(rows_of(cache, i / n_head, i % n_head));
        }
        std::mt19937 rng(5);
        std::normal_distribution<float> normal;
        size_t moves = 0;
        const uint8_t * last = nullptr;
        for (int32_t t = 500; t < 1500;) {
            const int32_t m = t % 400 == 0 ? 90 : 1;
            std::vector<float> k(static_cast<size_t>(m * n_head * d)), v(k.size());
            for (float & x : k) {
                x = normal(rng);
            }
            for (float & x : v) {
                x = normal(rng);
            }
            cache.reserve(m);
            moves += cache.v_rows(0, 2).data != last;
            last = cache.v_rows(0, 2).data;
            for (int32_t il = 0; il < n_layer; ++il) {
                ASSERT_TRUE(cache.append(il, {k.data()}, {v.data()}, m, t));
                for (int32_t g = 0; g < n_head; ++g) {
                    RowsByPosition & want = rows[static_cast<size_t>(il * n_head + g)];
                    const auto positions = cache.positions(il, g);
                    ASSERT_EQ(positions.size(), want.size() + static_cast<size_t>(m));
                    ASSERT_EQ(positions.back(), t + m - 1);
                    if (t % 50 != 0) {
                        // Only the new row enters the list here; all of them are compared below.
                        const KvRowsView kr = cache.k_rows(il, g), vr = cache.v_rows(il, g);
                        const auto bytes = [](const KvRowsView & from) {
                            const uint8_t * row = from.data + static_cast<size_t>(from.n_rows - 1) * from.row_bytes;
                            return std::string(reinterpret_cast<const char *>(row), from.row_bytes);
                        };
                        want.emplace(t, std::pair(bytes(kr), bytes(vr)));
                        continue;
                    }
                    RowsByPosition now = rows_of(cache, il, g);
                    for (const auto & [position, row] : want) {
                        ASSERT_EQ(now.at(position), row) << t << " " << position;
                    }
                    want = std::move(now);
                }
            }
            t += m;
            expect_tight(cache);
        }
        EXPECT_LE(moves, 1000U / 16);  // amortised: extents move once for 17 new rows or more
    }
}

// Heads that lose rows give memory back; the others, whose spare rows are nearly used up, do not grow at that moment.
TEST(Growth, CompactingOneHeadDoesNotGrowTheOthers) {
    const int32_t n_head = 16, d = 256;
    RaggedKvCache cache({1, n_head, d, KvType::f16, true});
    std::mt19937 rng(6);
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<size_t>(n_head * d));
    for (int32_t t = 0; t < 63; ++t) {  // 64 rows of capacity
        for (float & x : row) {
            x = normal(rng);
        }
        cache.reserve(1);
        ASSERT_TRUE(cache.append(0, {row.data()}, {row.data()}, 1, t));
    }
    const uint64_t reserved = cache.bytes_reserved();
    ASSERT_EQ(reserved, page_round(uint64_t{2} * n_head * 64 * cache.row_bytes()));
    const RaggedKvCache all = cache.snapshot();
    LayerPlan plan{std::vector<std::vector<int32_t>>(n_head, every(1, 63))};
    plan.kept[3] = every(7, 63);
    cache.compact(0, plan);
    EXPECT_LT(cache.bytes_reserved(), reserved);
    expect_tight(cache);
    for (int32_t g = 0; g < n_head; ++g) {
        const RowsByPosition before = rows_of(all, 0, g);
        const RowsByPosition after = rows_of(cache, 0, g);
        EXPECT_EQ(after.size(), plan.of_head(g).size());
        for (const auto & [position, bytes] : after) {
            EXPECT_EQ(bytes, before.at(position)) << g << " " << position;
        }
    }
}

TEST(CacheErrors, Construction) {
    const auto refuse = [](const KvCacheParams & params, const std::vector<std::string> & words) {
        expect_error(ErrorCode::invalid_argument, words, [&] { const RaggedKvCache cache(params); });
    };
    refuse({0, 1, 64, KvType::f16, true}, {"n_layer is 0"});
    refuse({1, -1, 64, KvType::f16, true}, {"n_head_kv is -1"});
    refuse({1, 1, 2048, KvType::f16, true}, {"head_dim is 2048", "1024"});
    refuse({1, 1, 80, KvType::q8_0, true}, {"q8_0", "multiple of 32", "80"});
    refuse({1, 1, 16, KvType::q4_0, false}, {"q4_0", "multiple of 32"});
    refuse({1, 1, 64, static_cast<KvType>(9), false}, {"type number 9"});
    const RaggedKvCache odd({1, 1, 80, KvType::f16, true});
    EXPECT_EQ(odd.row_bytes(), 160U);
    EXPECT_EQ(odd.bytes_reserved(), 0U);
}

TEST(CacheErrors, Calls) {
    RaggedKvCache cache({2, 2, 32, KvType::q8_0, true});
    const LayerData data = random_layer(2, 8, 32, 1);
    store(cache, 0, data);
    expect_error(ErrorCode::invalid_argument, {"store_layer 0", "8 rows already"}, [&] { store(cache, 0, data); });
    expect_error(ErrorCode::invalid_argument, {"layer 2", "2 layers"}, [&] { store(cache, 2, data); });
    expect_error(ErrorCode::invalid_argument, {"0 tokens"},
                 [&] { cache.store_layer(1, {data.k16.data()}, {data.v16.data()}, 0); });
    expect_error(ErrorCode::invalid_argument, {"without data"},
                 [&] { cache.store_layer(1, {}, {data.v16.data()}, 8); });
    expect_error(ErrorCode::invalid_argument, {"row stride of 31"}, [&] {
        cache.store_layer(1, {data.k16.data()}, {data.v16.data(), 31}, 8);
    });
    expect_error(ErrorCode::invalid_argument, {"layer -1"}, [&] { static_cast<void>(cache.n_rows(-1, 0)); });
    expect_error(ErrorCode::invalid_argument, {"KV head 2"}, [&] { static_cast<void>(cache.k_rows(0, 2)); });
    expect_error(ErrorCode::invalid_argument, {"reserve -1"}, [&] { cache.reserve(-1); });
    expect_error(ErrorCode::too_large, {"layer 0", "limit"}, [&] { cache.reserve(INT32_MAX); });
    std::vector<float> out(32);
    expect_error(ErrorCode::invalid_argument, {"slot 8", "8 rows"},
                 [&] { cache.read_rows_f32(0, 0, std::vector<int32_t>{8}, out, {}); });
    expect_error(ErrorCode::invalid_argument, {"room for 32", "64"}, [&] {
        cache.read_rows_f32(0, 0, std::vector<int32_t>{1, 2}, out, {});
    });
}

TEST(CacheErrors, AppendRefusesInsteadOfFailing) {
    RaggedKvCache cache({2, 2, 32, KvType::q8_0, true});
    const std::vector<float> rows(2 * 32 * 64, 1.0F);
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 1, 0)) << "nothing was reserved";
    cache.reserve(2);
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 64, 0)) << "more than reserved";
    EXPECT_FALSE(cache.append(2, {rows.data()}, {rows.data()}, 1, 0));
    EXPECT_FALSE(cache.append(0, {}, {rows.data()}, 1, 0));
    EXPECT_TRUE(cache.append(0, {}, {}, 0, 0));
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 1, -1));
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 1, 0, 1, 3));
    EXPECT_TRUE(cache.append(0, {rows.data()}, {rows.data()}, 1, 5));
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 1, 5)) << "the position is taken";
    EXPECT_FALSE(cache.append(0, {rows.data()}, {rows.data()}, 1, 4)) << "positions ascend";
    EXPECT_TRUE(cache.append(0, {rows.data()}, {rows.data()}, 1, 6));
    EXPECT_EQ(cache.n_rows(0, 1), 2);
    EXPECT_EQ(cache.n_rows(1, 0), 0);
}

// 2^29 rows of 1024 f16 elements in 4096 heads: 2^53 bytes, more than any address space holds.
TEST(CacheErrors, OutOfMemoryNamesTheBytes) {
    Arena arena;
    arena.grow(1, "a test");
    arena.data()[0] = 42;
    expect_error(ErrorCode::runtime, {"out of memory", "a test", "9007199254740992 bytes"},
                 [&] { arena.grow(size_t{1} << 53, "a test"); });
    EXPECT_EQ(arena.size(), Arena::page_round(1));
    EXPECT_EQ(arena.data()[0], 42);
    expect_error(ErrorCode::runtime, {"out of memory"}, [&] { arena.grow(SIZE_MAX, "a test"); });
}

}  // namespace
}  // namespace kvsieve::test
