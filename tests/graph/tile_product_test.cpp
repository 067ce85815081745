// SPDX-License-Identifier: MIT
// Products of matrices in tiles against double precision, for every type that has a kernel.
#include "graph/tile_product.h"

#include <ggml-cpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "graph/tile_kernel.h"

namespace kvsieve {
namespace {

std::vector<float> normal_numbers(int64_t n, std::mt19937 & random) {
    std::normal_distribution<float> normal;
    std::vector<float> numbers(static_cast<size_t>(n));
    std::generate(numbers.begin(), numbers.end(), [&] { return normal(random); });
    return numbers;
}

std::vector<ggml_type> types_with_kernels() {
    std::vector<ggml_type> types;
    for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
        if (tile_shape(static_cast<ggml_type>(type)).bytes != 0) {
            types.push_back(static_cast<ggml_type>(type));
        }
    }
    return types;
}

/// A matrix of made-up numbers in tiles.
struct Matrix {
    ggml_context_ptr ctx{ggml_init({2 * ggml_tensor_overhead(), nullptr, true})};
    ggml_tensor * w;
    std::vector<uint8_t> quantised, tiles;
    std::vector<float> values;  // as quantised

    Matrix(ggml_type type, int64_t n_in, int64_t n_out, std::mt19937 & random)
        : w(ggml_new_tensor_2d(ctx.get(), type, n_in, n_out)),
          quantised(ggml_row_size(type, n_in) * static_cast<size_t>(n_out)),
          tiles(tiles_bytes(type, n_in, n_out)),
          values(static_cast<size_t>(n_in * n_out)) {
        const std::vector<float> made_up = normal_numbers(n_in * n_out, random);
        ggml_quantize_chunk(type, made_up.data(), quantised.data(), 0, n_out, n_in, nullptr);
        ggml_get_type_traits(type)->to_float(quantised.data(), values.data(), n_in * n_out);
        w->data = tiles.data();
        pack_into_tiles(*w, quantised.data());
    }

    /// `product` against double precision. Rows are quantised to 8 bits: errors of a few 1/127 of the largest of a
    /// block, that average out.
    void expect_near(const std::vector<float> & product, const std::vector<float> & x) const {
        const auto n_in = static_cast<size_t>(w->ne[0]), n_out = static_cast<size_t>(w->ne[1]);
        for (size_t i = 0; i < product.size(); ++i) {
            const float * row = x.data() + i / n_out * n_in;
            const float * column = values.data() + i % n_out * n_in;
            double expected = 0, squares = 0;
            for (size_t e = 0; e < n_in; ++e) {
                const double one = static_cast<double>(row[e]) * static_cast<double>(column[e]);
                expected += one;
                squares += one * one;
            }
            ASSERT_NEAR(static_cast<double>(product[i]), expected, 0.06 * std::sqrt(squares) + 1e-3) << i;
        }
    }

    [[nodiscard]] std::vector<float> multiply(std::vector<float> & x, int32_t n_threads) const {
        const int64_t n = static_cast<int64_t>(x.size()) / w->ne[0];
        std::vector<float> product(static_cast<size_t>(n * w->ne[1]));
        GraphRunner(n_threads).run(8, [&](GraphBuilder & b) {
            ggml_tensor * rows = b.external(GGML_TYPE_F32, w->ne[0], n, 1, x.data());
            b.expand(
                ggml_cpy(b.ctx, tile_product(b, w, rows), b.external(GGML_TYPE_F32, w->ne[1], n, 1, product.data())));
        });
        return product;
    }
};

class TileProduct : public testing::Test {
  protected:
    void SetUp() override {
        if (!tile_kernel_runs()) {
            GTEST_SKIP() << "this processor has no AVX-512 VNNI";
        }
    }
};

TEST_F(TileProduct, IsTheProductForEveryTypeAndNumberOfRows) {
    std::mt19937 random(7);
    for (const ggml_type type : types_with_kernels()) {
        SCOPED_TRACE(ggml_type_name(type));
        for (const auto & [n_in, n_out] : {std::pair<int64_t, int64_t>{256, 16}, {1024, 112}}) {
            const Matrix matrix(type, n_in, n_out, random);
            EXPECT_TRUE(is_in_tiles(*matrix.w));
            const int64_t most = 2 * kMaxTileRows + 5;
            std::vector<float> x = normal_numbers(most * n_in, random);
            std::fill_n(x.begin(), n_in / 2, 0.0F);  // blocks of zeros have no scale
            const std::vector<float> all = matrix.multiply(x, 3);
            matrix.expect_near(all, x);
            for (const int64_t n : {1, 2, 3, 7, kMaxTileRows, kMaxTileRows + 1}) {  // the last n rows
                std::vector<float> some(x.end() - n * n_in, x.end());
                EXPECT_EQ(matrix.multiply(some, static_cast<int32_t>(1 + n % 2)),
                          std::vector<float>(all.end() - n * n_out, all.end()))
                    << n << " rows";
            }
        }
    }
}

TEST_F(TileProduct, RoundsNothingButTheRows) {
    std::mt19937 random(8);
    for (const ggml_type type : types_with_kernels()) {
        const int64_t n_in = 512, n_out = 32;
        const Matrix matrix(type, n_in, n_out, random);
        std::vector<float> x(static_cast<size_t>(n_in * n_in));  // one element of each row is 1: the matrix's columns
        for (size_t e = 0; e < static_cast<size_t>(n_in); ++e) {
            x[e * static_cast<size_t>(n_in) + e] = 1;
        }
        const std::vector<float> product = matrix.multiply(x, 2);
        double most = 0;
        for (size_t i = 0; i < product.size(); ++i) {
            const size_t row = i / static_cast<size_t>(n_out), column = i % static_cast<size_t>(n_out);
            const float value = matrix.values[column * static_cast<size_t>(n_in) + row];
            most = std::max(most, static_cast<double>(std::abs(product[i] - value)));
        }
        EXPECT_LE(most, 2e-3) << ggml_type_name(type);  // 1 is stored as 127 times 1/127 in half precision
    }
}

TEST_F(TileProduct, WhatIsNoNumberStaysInItsRow) {
    std::mt19937 random(9);
    for (const ggml_type type : types_with_kernels()) {
        const Matrix matrix(type, 512, 32, random);
        std::vector<float> x = normal_numbers(3 * 512, random);
        const std::vector<float> before = matrix.multiply(x, 1);
        x[512 + 300] = std::numeric_limits<float>::quiet_NaN();
        const std::vector<float> product = matrix.multiply(x, 1);
        for (size_t i = 0; i < product.size(); ++i) {
            if (i / 32 == 1) {
                EXPECT_TRUE(std::isnan(product[i])) << ggml_type_name(type);
            } else {
                EXPECT_EQ(product[i], before[i]) << ggml_type_name(type);
            }
        }
    }
}

TEST_F(TileProduct, TakesWholeTilesOfItsTypes) {
    EXPECT_EQ(tiles_bytes(GGML_TYPE_F16, 512, 64), 0U);
    EXPECT_EQ(tiles_bytes(GGML_TYPE_Q4_0, 512, 40), 0U);
    EXPECT_EQ(tiles_bytes(GGML_TYPE_Q4_K, 288, 64), 0U);
    const ggml_context_ptr ctx(ggml_init({2 * ggml_tensor_overhead(), nullptr, true}));
    EXPECT_FALSE(is_in_tiles(*ggml_new_tensor_2d(ctx.get(), GGML_TYPE_Q4_0, 512, 64)));
}

TEST(TileShape, TypesHaveTheBlocksThatGgmlHas) {
    EXPECT_EQ(types_with_kernels().size(), 7U);
    for (const ggml_type type : types_with_kernels()) {
        SCOPED_TRACE(ggml_type_name(type));
        const TileShape shape = tile_shape(type);
        EXPECT_EQ(shape.n_element, ggml_blck_size(type));
        EXPECT_GE(shape.bytes, kTileColumns * ggml_type_size(type));
    }
}

}  // namespace
}  // namespace kvsieve
