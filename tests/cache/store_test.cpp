// SPDX-License-Identifier: MIT
// What goes in comes out: storing from prefill, appending, reading back.
#include <ggml-cpu.h>

#include "cache/cache_test_util.h"

namespace kvsieve::test {
namespace {

class StoreTest : public testing::TestWithParam<KvType> {};

struct RowErrors {
    double worst = 0;  // largest error of an element over the largest magnitude of its row
    double norm = 0;   // largest norm of a row's error over the row's norm
};

/// Of all rows of a cache that holds everything.
RowErrors row_errors(const RaggedKvCache & cache, const LayerData & data) {
    RowErrors errors;
    std::vector<int32_t> slots(static_cast<size_t>(data.n_tokens));
    std::iota(slots.begin(), slots.end(), 0);
    const auto d = static_cast<size_t>(data.head_dim);
    std::vector<float> k(slots.size() * d), v(slots.size() * d);
    for (int32_t g = 0; g < data.n_head_kv; ++g) {
        cache.read_rows_f32(0, g, slots, k, v);
        for (const int32_t t : slots) {
            for (const bool key : {true, false}) {
                const std::span<const float> want = data.row(key, g, t);
                const float * got = (key ? k : v).data() + static_cast<size_t>(t) * d;
                double most = 0, worst = 0, square = 0, square_error = 0;
                for (size_t i = 0; i < d; ++i) {
                    const double x = static_cast<double>(want[i]), error = static_cast<double>(got[i]) - x;
                    most = std::max(most, std::abs(x));
                    worst = std::max(worst, std::abs(error));
                    square += x * x;
                    square_error += error * error;
                }
                errors.worst = std::max(errors.worst, worst / most);
                errors.norm = std::max(errors.norm, std::sqrt(square_error / square));
            }
        }
    }
    return errors;
}

TEST_P(StoreTest, RoundTrip) {
    for (const int32_t d : {32, 64, 96, 128, 192, 256}) {
        for (const bool rotate : {false, true}) {
            const LayerData data = random_layer(3, 40, d, 7);
            RaggedKvCache cache({1, 3, d, GetParam(), rotate});
            store(cache, 0, data);
            EXPECT_EQ(cache.row_bytes(), ggml_row_size(ggml_type_of(GetParam()), d));
            const bool rotated = rotate && GetParam() != KvType::f16 && d % 64 == 0;
            EXPECT_EQ(cache.k_rows(0, 0).rotation, rotated ? key_rotation_block(d) : 0);
            EXPECT_EQ(cache.v_rows(0, 0).rotation, rotated ? value_rotation_block(d) : 0);
            const RowErrors errors = row_errors(cache, data);
            if (GetParam() == KvType::f16) {
                EXPECT_EQ(errors.worst, 0.0) << d;
                continue;
            }
            // A block's step is its maximum / 127 (q8_0, half a step of error) or / 8 (q4_0, whose far end can be off
            // by a whole step), times a scale rounded to f16. Rotating back spreads an error over the block, but keeps
            // its norm: step / sqrt(12) for a normal row whose blocks have a maximum of about 2.2 deviations.
            const bool q8 = GetParam() == KvType::q8_0;
            if (!rotated) {
                EXPECT_LE(errors.worst, q8 ? 0.57 / 127 : 1.01 / 8) << d;
            }
            EXPECT_LE(errors.norm, q8 ? 0.009 : 0.14) << d << " rotate " << rotate;
            EXPECT_GE(errors.norm, q8 ? 0.003 : 0.05) << d << " rotate " << rotate;
        }
    }
}

TEST_P(StoreTest, UnrotatedRowsAreGgmlsOwn) {
    const LayerData data = random_layer(2, 5, 96, 11);
    RaggedKvCache cache({1, 2, 96, GetParam(), true});  // 96 is no multiple of 64: not rotated
    store(cache, 0, data);
    for (int32_t g = 0; g < 2; ++g) {
        for (int32_t t = 0; t < 5; ++t) {
            std::string want(cache.row_bytes(), '\0');
            const std::span<const float> row = data.row(true, g, t);
            ggml_get_type_traits_cpu(ggml_type_of(GetParam()))->from_float(row.data(), want.data(), 96);
            EXPECT_EQ(rows_of(cache, 0, g).at(t).first, want);
        }
    }
}

TEST(StoreRotation, HelpsRowsWithOutliers) {
    for (const KvType type : {KvType::q8_0, KvType::q4_0}) {
        LayerData data = random_layer(1, 64, 128, 5);
        for (size_t i = 17; i < data.k.size(); i += 128) {
            data.k[i] *= 40.0F;  // one channel far above the others, as keys have them
            data.v[i] *= 40.0F;
        }
        ggml_fp32_to_fp16_row(data.k.data(), data.k16.data(), static_cast<int64_t>(data.k.size()));
        ggml_fp32_to_fp16_row(data.v.data(), data.v16.data(), static_cast<int64_t>(data.v.size()));
        double square[2] = {0, 0};
        for (const bool rotate : {false, true}) {
            RaggedKvCache cache({1, 1, 128, type, rotate});
            store(cache, 0, data);
            std::vector<int32_t> slots(64);
            std::iota(slots.begin(), slots.end(), 0);
            std::vector<float> k(64 * 128);
            cache.read_rows_f32(0, 0, slots, k, {});
            for (size_t i = 0; i < k.size(); ++i) {
                square[rotate] += std::pow(static_cast<double>(k[i] - data.k[i]), 2);
            }
        }
        EXPECT_LT(square[1], 0.7 * square[0]) << kv_type_name(type);
    }
}

TEST_P(StoreTest, StridesOfAScratch) {
    const LayerData data = random_layer(2, 10, 64, 3);
    RaggedKvCache dense({1, 2, 64, GetParam(), true});
    store(dense, 0, data);
    // The same rows in a scratch for 16 tokens whose rows are 80 elements apart.
    std::vector<ggml_fp16_t> k(2 * 16 * 80), v(k.size());
    for (size_t g = 0; g < 2; ++g) {
        for (size_t t = 0; t < 10; ++t) {
            std::copy_n(data.k16.begin() + static_cast<std::ptrdiff_t>((g * 10 + t) * 64), 64,
                        k.begin() + static_cast<std::ptrdiff_t>((g * 16 + t) * 80));
            std::copy_n(data.v16.begin() + static_cast<std::ptrdiff_t>((g * 10 + t) * 64), 64,
                        v.begin() + static_cast<std::ptrdiff_t>((g * 16 + t) * 80));
        }
    }
    RaggedKvCache strided({1, 2, 64, GetParam(), true});
    strided.store_layer(0, {k.data(), 80, 16 * 80}, {v.data(), 80, 16 * 80}, 10);
    for (int32_t g = 0; g < 2; ++g) {
        EXPECT_EQ(rows_of(dense, 0, g), rows_of(strided, 0, g));
    }
}

TEST_P(StoreTest, AppendEqualsStore) {
    const int32_t n_head = 3, d = 128, n = 200;
    const LayerData data = random_layer(n_head, n, d, 9);
    RaggedKvCache stored({1, n_head, d, GetParam(), true});
    store(stored, 0, data);
    // [n][G][d] as ggml has it.
    std::vector<float> k(data.k.size()), v(k.size());
    for (size_t t = 0; t < n; ++t) {
        for (size_t g = 0; g < n_head; ++g) {
            const std::span<const float> key = data.row(true, static_cast<int32_t>(g), static_cast<int32_t>(t));
            const std::span<const float> value = data.row(false, static_cast<int32_t>(g), static_cast<int32_t>(t));
            std::copy(key.begin(), key.end(), k.begin() + static_cast<std::ptrdiff_t>((t * n_head + g) * d));
            std::copy(value.begin(), value.end(), v.begin() + static_cast<std::ptrdiff_t>((t * n_head + g) * d));
        }
    }
    RaggedKvCache appended({1, n_head, d, GetParam(), true});
    int32_t t = 0;
    for (const int32_t step : {1, 1, 30, 1, 64, 100, 3}) {
        appended.reserve(step);
        const size_t at = static_cast<size_t>(t) * n_head * d;
        // Heads one after another, as threads would share them.
        ASSERT_TRUE(appended.append(0, {k.data() + at}, {v.data() + at}, step, t, 0, 1));
        ASSERT_TRUE(appended.append(0, {k.data() + at}, {v.data() + at}, step, t, 1));
        t += step;
        expect_tight(appended);
    }
    ASSERT_EQ(t, n);
    for (int32_t g = 0; g < n_head; ++g) {
        EXPECT_EQ(rows_of(stored, 0, g), rows_of(appended, 0, g));
    }
    // The same tokens out of a wider tensor (fused query, key and value).
    std::vector<float> wide(static_cast<size_t>(n) * 3 * n_head * d);
    for (size_t i = 0; i < n; ++i) {
        std::copy_n(k.begin() + static_cast<std::ptrdiff_t>(i * n_head * d), n_head * d,
                    wide.begin() + static_cast<std::ptrdiff_t>((3 * i + 1) * n_head * d));
        std::copy_n(v.begin() + static_cast<std::ptrdiff_t>(i * n_head * d), n_head * d,
                    wide.begin() + static_cast<std::ptrdiff_t>((3 * i + 2) * n_head * d));
    }
    RaggedKvCache from_wide({1, n_head, d, GetParam(), true});
    from_wide.reserve(n);
    const size_t token_stride = 3 * n_head * d;
    ASSERT_TRUE(from_wide.append(0, {wide.data() + n_head * d, d, token_stride},
                                 {wide.data() + 2 * n_head * d, d, token_stride}, n, 0));
    for (int32_t g = 0; g < n_head; ++g) {
        EXPECT_EQ(rows_of(stored, 0, g), rows_of(from_wide, 0, g));
    }
}

INSTANTIATE_TEST_SUITE_P(Types, StoreTest, KVSIEVE_ALL_KV_TYPES, type_of);

TEST(KvTypeNames, BothWays) {
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        EXPECT_EQ(parse_kv_type(kv_type_name(type)), type);
    }
    expect_error(ErrorCode::invalid_argument, {"'q5_1'", "q4_0"}, [] { static_cast<void>(parse_kv_type("q5_1")); });
}

}  // namespace
}  // namespace kvsieve::test
