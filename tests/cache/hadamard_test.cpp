// SPDX-License-Identifier: MIT
#include "cache/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace kvsieve {
namespace {

std::vector<float> random_row(size_t n, uint32_t seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    std::vector<float> row(n);
    for (float & x : row) {
        x = normal(rng);
    }
    return row;
}

TEST(Hadamard, BlocksOfHeadSizes) {
    const struct {
        int32_t d, k, v;
    } cases[] = {{32, 0, 0},    {64, 64, 64},   {80, 0, 0},    {96, 0, 0},     {112, 0, 0},  {128, 128, 64},
                 {192, 64, 64}, {256, 256, 64}, {320, 64, 64}, {512, 512, 64}, {576, 64, 64}};
    for (const auto & c : cases) {
        EXPECT_EQ(key_rotation_block(c.d), c.k) << c.d;
        EXPECT_EQ(value_rotation_block(c.d), c.v) << c.d;
    }
    EXPECT_EQ(key_rotation_block(0), 0);
    EXPECT_EQ(value_rotation_block(-64), 0);
}

TEST(Hadamard, IsItsOwnInverseAndKeepsDotProducts) {
    for (const int32_t d : {64, 128, 192, 256, 512}) {
        for (const int32_t block : {key_rotation_block(d), value_rotation_block(d)}) {
            const std::vector<float> a = random_row(static_cast<size_t>(d), 1);
            const std::vector<float> b = random_row(static_cast<size_t>(d), 2);
            std::vector<float> ra = a, rb = b;
            hadamard_rotate(ra, block);
            hadamard_rotate(rb, block);
            EXPECT_NEAR(std::inner_product(ra.begin(), ra.end(), rb.begin(), 0.0),
                        std::inner_product(a.begin(), a.end(), b.begin(), 0.0), 1e-3)
                << d;
            EXPECT_NE(ra, a);
            hadamard_rotate(ra, block);
            for (size_t i = 0; i < a.size(); ++i) {
                EXPECT_NEAR(ra[i], a[i], 1e-5) << d << " " << i;
            }
        }
    }
}

// The Sylvester matrix: entry (i, j) is (-1)^popcount(i & j) / sqrt(n), block by block.
TEST(Hadamard, IsTheSylvesterMatrix) {
    for (const int32_t block : {2, 4, 8, 64, 128, 256, 512}) {
        const auto n = static_cast<size_t>(block);
        for (size_t copies : {1U, 3U}) {
            const std::vector<float> row = random_row(n * copies, 3);
            std::vector<float> rotated = row;
            hadamard_rotate(rotated, block);
            for (size_t i = 0; i < row.size(); ++i) {
                const size_t start = i / n * n;
                double sum = 0;
                for (size_t j = 0; j < n; ++j) {
                    sum += (std::popcount((i - start) & j) % 2 != 0 ? -1.0 : 1.0) * static_cast<double>(row[start + j]);
                }
                ASSERT_NEAR(rotated[i], sum / std::sqrt(static_cast<double>(n)), 1e-4) << block << " " << i;
            }
        }
    }
}

TEST(Hadamard, BlockZeroDoesNothing) {
    const std::vector<float> row = random_row(96, 4);
    std::vector<float> same = row;
    hadamard_rotate(same, 0);
    EXPECT_EQ(same, row);
}

}  // namespace
}  // namespace kvsieve
