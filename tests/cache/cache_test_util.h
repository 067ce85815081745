// SPDX-License-Identifier: MIT
#pragma once

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"

namespace kvsieve::test {

/// Keys and values of one layer, [G][n][d], as floats that f16 holds exactly.
struct LayerData {
    int32_t n_head_kv, n_tokens, head_dim;
    std::vector<float> k, v;
    std::vector<ggml_fp16_t> k16, v16;

    [[nodiscard]] std::span<const float> row(bool key, int32_t g, int32_t position) const {
        const auto at = (static_cast<size_t>(g) * static_cast<size_t>(n_tokens) + static_cast<size_t>(position)) *
                        static_cast<size_t>(head_dim);
        return std::span(key ? k : v).subspan(at, static_cast<size_t>(head_dim));
    }
};

inline LayerData random_layer(int32_t n_head_kv, int32_t n_tokens, int32_t head_dim, uint32_t seed) {
    LayerData data{n_head_kv, n_tokens, head_dim, {}, {}, {}, {}};
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (const bool key : {true, false}) {
        std::vector<float> & f32 = key ? data.k : data.v;
        std::vector<ggml_fp16_t> & f16 = key ? data.k16 : data.v16;
        f32.resize(static_cast<size_t>(n_head_kv) * static_cast<size_t>(n_tokens) * static_cast<size_t>(head_dim));
        f16.resize(f32.size());
        for (float & x : f32) {
            x = normal(rng);
        }
        ggml_fp32_to_fp16_row(f32.data(), f16.data(), static_cast<int64_t>(f32.size()));
        ggml_fp16_to_fp32_row(f16.data(), f32.data(), static_cast<int64_t>(f32.size()));
    }
    return data;
}

inline void store(RaggedKvCache & cache, int32_t il, const LayerData & data, const LayerPlan * plan = nullptr) {
    cache.store_layer(il, {data.k16.data()}, {data.v16.data()}, data.n_tokens, plan);
}

/// Bytes of key and value by position.
using RowsByPosition = std::map<int32_t, std::pair<std::string, std::string>>;

inline RowsByPosition rows_of(const RaggedKvCache & cache, int32_t il, int32_t g) {
    RowsByPosition rows;
    const KvRowsView k = cache.k_rows(il, g);
    const KvRowsView v = cache.v_rows(il, g);
    const auto positions = cache.positions(il, g);
    EXPECT_EQ(k.n_rows, static_cast<int32_t>(positions.size()));
    EXPECT_EQ(v.n_rows, k.n_rows);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(k.data) % 32, 0U);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(v.data) % 32, 0U);
    const auto bytes = [](const KvRowsView & from, size_t slot) {
        return std::string(reinterpret_cast<const char *>(from.data + slot * from.row_bytes), from.row_bytes);
    };
    for (size_t i = 0; i < positions.size(); ++i) {
        EXPECT_TRUE(rows.emplace(positions[i], std::pair(bytes(k, i), bytes(v, i))).second)
            << "twice: " << positions[i];
    }
    return rows;
}

/// About `share` of [0, n), ascending; position 0 and n-1 are always in.
inline std::vector<int32_t> random_positions(int32_t n, double share, std::mt19937 & rng) {
    std::vector<int32_t> kept;
    std::bernoulli_distribution keep(share);
    for (int32_t i = 0; i < n; ++i) {
        if (keep(rng) || i == 0 || i == n - 1) {
            kept.push_back(i);
        }
    }
    return kept;
}

inline size_t page_round(uint64_t bytes) {
    return Arena::page_round(static_cast<size_t>(bytes));
}

/// Reserved memory is at most held + 32 rows per extent, in whole pages per layer.
inline void expect_tight(const RaggedKvCache & cache) {
    uint64_t limit = 0;
    for (int32_t il = 0; il < cache.params().n_layer; ++il) {
        uint64_t rows = 0;
        for (int32_t g = 0; g < cache.params().n_head_kv; ++g) {
            rows += static_cast<uint64_t>(cache.n_rows(il, g) + kMaxSpareRows);
        }
        const uint64_t layer_limit = page_round(2 * rows * cache.row_bytes());
        limit += layer_limit;
        // The last extent ends inside what the layer may have.
        const KvRowsView last = cache.v_rows(il, cache.params().n_head_kv - 1);
        if (last.n_rows > 0) {
            const auto end = last.data + static_cast<size_t>(last.n_rows) * last.row_bytes - cache.k_rows(il, 0).data;
            EXPECT_LE(static_cast<uint64_t>(end), layer_limit);
        }
    }
    EXPECT_LE(cache.bytes_reserved(), limit);
    EXPECT_GE(cache.bytes_reserved(), cache.bytes_held());
}

/// Runs f and checks that it throws an Error of this code whose message contains every given word.
template <typename F>
void expect_error(ErrorCode code, const std::vector<std::string> & words, F && f) {
    try {
        f();
        ADD_FAILURE() << "no error; expected one with: " << (words.empty() ? "" : words[0]);
    } catch (const Error & error) {
        EXPECT_EQ(error.code(), code) << error.what();
        for (const std::string & word : words) {
            EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what() << " lacks " << word;
        }
    }
}

inline std::string type_of(const testing::TestParamInfo<KvType> & info) {
    return std::string(kv_type_name(info.param));
}

#define KVSIEVE_ALL_KV_TYPES testing::Values(KvType::f16, KvType::q8_0, KvType::q4_0)

}  // namespace kvsieve::test
