// SPDX-License-Identifier: MIT
// Products with few rows of matrices in AMX tiles against ggml's own, bit for bit, and against double precision.
#include "graph/tile_product.h"

#include <ggml-cpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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

/// A matrix of made-up numbers in AMX tiles.
struct Matrix {
    ggml_context_ptr ctx{ggml_init({2 * ggml_tensor_overhead(), nullptr, true})};
    ggml_tensor * w;
    ggml_backend_buffer_ptr buffer;
    std::vector<float> values;  // as quantised

    Matrix(ggml_type type, int64_t n_in, int64_t n_out, ggml_backend_buffer_type_t layout, std::mt19937 & random)
        : w(ggml_new_tensor_2d(ctx.get(), type, n_in, n_out)),
          buffer(ggml_backend_buft_alloc_buffer(layout, ggml_backend_buft_get_alloc_size(layout, w))),
          values(static_cast<size_t>(n_in * n_out)) {
        ggml_backend_tensor_alloc(buffer.get(), w, ggml_backend_buffer_get_base(buffer.get()));
        const std::vector<float> made_up = normal_numbers(n_in * n_out, random);
        const std::vector<float> importance(static_cast<size_t>(n_in), 1.0F);
        std::vector<uint8_t> quantised(ggml_row_size(type, n_in) * static_cast<size_t>(n_out));
        ggml_quantize_chunk(type, made_up.data(), quantised.data(), 0, n_out, n_in, importance.data());
        ggml_get_type_traits(type)->to_float(quantised.data(), values.data(), n_in * n_out);
        ggml_backend_tensor_set(w, quantised.data(), 0, quantised.size());
    }

    [[nodiscard]] std::vector<float> multiply(std::vector<float> & x, bool own, int32_t n_threads) const {
        const int64_t n = static_cast<int64_t>(x.size()) / w->ne[0];
        std::vector<float> product(static_cast<size_t>(n * w->ne[1]));
        GraphRunner(n_threads).run(8, [&](GraphBuilder & b) {
            ggml_tensor * rows = b.external(GGML_TYPE_F32, w->ne[0], n, 1, x.data());
            b.expand(ggml_cpy(b.ctx, own ? tile_product(b, w, rows) : ggml_mul_mat(b.ctx, w, rows),
                              b.external(GGML_TYPE_F32, w->ne[1], n, 1, product.data())));
        });
        return product;
    }
};

TEST(TileProduct, HasTheBitsOfGgmlsOwnForEveryTypeAndNumberOfRows) {
    ggml_backend_buffer_type_t layout = tile_layout();
    if (layout == nullptr) {
        GTEST_SKIP() << "this processor or this build has no AMX";
    }
    std::mt19937 random(7);
    for (const ggml_type type : types_with_kernels()) {
        SCOPED_TRACE(ggml_type_name(type));
        for (const auto & [n_in, n_out] : {std::pair<int64_t, int64_t>{256, 32}, {768, 160}, {2048, 96}}) {
            const Matrix matrix(type, n_in, n_out, layout, random);
            ASSERT_TRUE(takes_tile_product(*matrix.w, 1)) << "ggml's layout has changed";
            for (const int32_t n : {1, 2, 3, 7, kMaxTileRows}) {
                ASSERT_TRUE(takes_tile_product(*matrix.w, n));
                std::vector<float> x = normal_numbers(n * n_in, random);
                std::fill_n(x.begin(), n_in / 2, 0.0F);  // blocks of zeros have no scale
                const std::vector<float> product = matrix.multiply(x, true, 1 + n % 3);
                EXPECT_EQ(product, matrix.multiply(x, false, 2)) << n_in << " x " << n_out << ", " << n << " rows";
                for (size_t i = 0; i < product.size(); ++i) {
                    const size_t row = i / static_cast<size_t>(n_out), column = i % static_cast<size_t>(n_out);
                    double expected = 0, magnitude = 0;
                    for (size_t e = 0; e < static_cast<size_t>(n_in); ++e) {
                        const double a = static_cast<double>(x[row * static_cast<size_t>(n_in) + e]),
                                     b = static_cast<double>(matrix.values[column * static_cast<size_t>(n_in) + e]);
                        expected += a * b;
                        magnitude += a * a * b * b;
                    }
                    // rows are quantised to 8 bits: errors of a few 1/127 of the largest of a block, that average out
                    ASSERT_NEAR(static_cast<double>(product[i]), expected, 0.06 * std::sqrt(magnitude) + 1e-3) << i;
                }
            }
        }
    }
}

TEST(TileProduct, RowsDoNotDependOnTheirNumber) {
    ggml_backend_buffer_type_t layout = tile_layout();
    if (layout == nullptr) {
        GTEST_SKIP() << "this processor or this build has no AMX";
    }
    std::mt19937 random(8);
    const int64_t n_in = 512, n_out = 64;
    const Matrix matrix(GGML_TYPE_Q4_K, n_in, n_out, layout, random);
    std::vector<float> x = normal_numbers(kMaxTileRows * n_in, random);
    const std::vector<float> together = matrix.multiply(x, true, 2);
    for (int64_t r = 0; r < kMaxTileRows; ++r) {
        std::vector<float> row(x.begin() + r * n_in, x.begin() + (r + 1) * n_in);
        EXPECT_EQ(matrix.multiply(row, true, 1),
                  std::vector<float>(together.begin() + r * n_out, together.begin() + (r + 1) * n_out));
    }
}

TEST(TileProduct, OtherMatricesAreGgmls) {
    const ggml_context_ptr ctx(ggml_init({4 * ggml_tensor_overhead(), nullptr, true}));
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_Q4_0, 512, 64);
    EXPECT_FALSE(takes_tile_product(*w, 1)) << "as it lies in a file";
    if (ggml_backend_buffer_type_t layout = tile_layout(); layout != nullptr) {
        std::mt19937 random(9);
        const Matrix matrix(GGML_TYPE_Q4_0, 512, 64, layout, random);
        EXPECT_FALSE(takes_tile_product(*matrix.w, kMaxTileRows + 1));
    }
}

TEST(TileProduct, TypesHaveTheBlocksThatGgmlHas) {
    EXPECT_EQ(types_with_kernels().size(), 7U);
    for (const ggml_type type : types_with_kernels()) {
        SCOPED_TRACE(ggml_type_name(type));
        const TileShape shape = tile_shape(type);
        EXPECT_EQ(shape.n_element, ggml_blck_size(type));
        EXPECT_EQ(shape.n_element, ggml_blck_size(shape.row_type));
        EXPECT_GE(shape.bytes, kTileColumns * ggml_type_size(type));
    }
}

}  // namespace
}  // namespace kvsieve
