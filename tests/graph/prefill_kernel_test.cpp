// SPDX-License-Identifier: MIT
// The prefill kernel against double precision over the rows as stored, for every instruction set that runs here.
#include "graph/prefill_kernel.h"

#include <ggml.h>
#include <gtest/gtest.h>
#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "graph/targets.h"

namespace kvsieve {
namespace {

std::vector<float> normal_numbers(size_t n, float deviation, std::mt19937 & random) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> numbers(n);
    std::generate(numbers.begin(), numbers.end(), [&] { return normal(random); });
    return numbers;
}

/// f16 rows, and what they mean.
struct HalfRows {
    std::vector<ggml_fp16_t> stored;
    std::vector<float> values;

    HalfRows(size_t n, std::mt19937 & random) : stored(n), values(normal_numbers(n, 1, random)) {
        ggml_fp32_to_fp16_row(values.data(), stored.data(), static_cast<int64_t>(n));
        ggml_fp16_to_fp32_row(stored.data(), values.data(), static_cast<int64_t>(n));
    }
};

/// A head with its rows and the queries at positions first .. first + n - 1.
struct Case {
    size_t d, first, n;
    HalfRows k, v;
    std::vector<float> q;  // [n][d]
    float scale;

    Case(size_t d_, size_t first_, size_t n_, std::mt19937 & random)
        : d(d_),
          first(first_),
          n(n_),
          k((first + n) * d, random),
          v((first + n) * d, random),
          q(normal_numbers(n * d, 3, random)),
          scale(1 / std::sqrt(static_cast<float>(d))) {}

    /// Softmax attention of query i on the first n_rows rows, in double precision.
    [[nodiscard]] std::vector<double> attention(size_t i, size_t n_rows) const {
        std::vector<double> weight(n_rows);
        for (size_t t = 0; t < n_rows; ++t) {
            for (size_t e = 0; e < d; ++e) {
                weight[t] += static_cast<double>(scale) * static_cast<double>(q[i * d + e]) *
                             static_cast<double>(k.values[t * d + e]);
            }
        }
        const double max = *std::max_element(weight.begin(), weight.end());
        double sum = 0;
        for (double & w : weight) {
            w = std::exp(w - max);
            sum += w;
        }
        for (double & w : weight) {
            w /= sum;
        }
        return weight;
    }

    /// Output [count][d] of the queries from `from` on, and the column sums if wanted.
    [[nodiscard]] std::vector<float> attend(size_t from, size_t count, std::vector<float> * sums = nullptr) const {
        std::vector<float> out(count * d);
        const size_t n_rows = first + from + count;
        const auto work =
            hwy::AllocateAligned<float>(query_block_floats(static_cast<int32_t>(d), static_cast<int32_t>(n_rows)));
        if (sums != nullptr) {
            sums->assign(n_rows, 0.0F);
        }
        attend_block({.head_dim = static_cast<int32_t>(d),
                      .n_rows = static_cast<int32_t>(n_rows),
                      .first = static_cast<int32_t>(first + from),
                      .n_query = static_cast<int32_t>(count),
                      .k = k.stored.data(),
                      .v = v.stored.data(),
                      .q = q.data() + from * d,
                      .q_stride = d,
                      .scale = scale,
                      .out = out.data(),
                      .out_stride = d,
                      .sums = sums == nullptr ? nullptr : sums->data()},
                     work.get());
        return out;
    }
};

void expect_reference(const Case & c) {
    std::vector<float> sums;
    const std::vector<float> out = c.attend(0, c.n, &sums);
    std::vector<double> expected_sums(sums.size());
    for (size_t i = 0; i < c.n; ++i) {
        const std::vector<double> weight = c.attention(i, c.first + i + 1);
        std::vector<double> expected(c.d);
        for (size_t t = 0; t < weight.size(); ++t) {
            expected_sums[t] += weight[t];
            for (size_t e = 0; e < c.d; ++e) {
                expected[e] += weight[t] * static_cast<double>(c.v.values[t * c.d + e]);
            }
        }
        for (size_t e = 0; e < c.d; ++e) {
            EXPECT_NEAR(static_cast<double>(out[i * c.d + e]), expected[e], 2e-5);
        }
    }
    for (size_t t = 0; t < sums.size(); ++t) {
        EXPECT_NEAR(static_cast<double>(sums[t]), expected_sums[t], 2e-5 * static_cast<double>(c.n));
    }
}

TEST(PrefillKernel, EqualsDoublePrecisionOverRandomShapes) {
    on_every_target(prefill_kernel_target, [] {
        std::mt19937 random(11);
        for (int round = 0; round < 24; ++round) {
            constexpr size_t kDims[] = {32, 64, 96, 128, 256, 80, 40, 8, 72, 2};
            const size_t d = kDims[random() % std::size(kDims)];
            const size_t first = random() % 4 == 0 ? 0 : random() % 400;
            const size_t n = random() % 3 == 0 ? kQueryBlock : 1 + random() % kQueryBlock;
            SCOPED_TRACE("d " + std::to_string(d) + " first " + std::to_string(first) + " queries " +
                         std::to_string(n));
            expect_reference({d, first, n, random});
        }
    });
}

TEST(PrefillKernel, AQuerysOutputIsTheSameInEveryBlock) {
    on_every_target(prefill_kernel_target, [] {
        std::mt19937 random(12);
        const Case c(64, 131, kQueryBlock, random);
        const std::vector<float> together = c.attend(0, c.n);
        for (size_t from = 0, count = 1; from < c.n; from += count, count = std::min<size_t>(count + 3, c.n - from)) {
            const std::vector<float> alone = c.attend(from, count);
            EXPECT_TRUE(
                std::equal(alone.begin(), alone.end(), together.begin() + static_cast<std::ptrdiff_t>(from * c.d)))
                << from << " to " << from + count;
        }
    });
}

/// Queries that all see all rows, without output: probes.
TEST(PrefillKernel, WeighsColumnSumsAndTheirSquares) {
    on_every_target(prefill_kernel_target, [] {
        std::mt19937 random(14);
        const Case c(96, 200, 50, random);
        const size_t n_rows = c.first + c.n;
        std::vector<float> once(c.n), twice(c.n), sums(n_rows, 1.0F), squares(n_rows, 2.0F);
        std::uniform_real_distribution<float> uniform;
        std::generate(once.begin(), once.end(), [&] { return uniform(random); });
        std::generate(twice.begin(), twice.end(), [&] { return uniform(random); });
        const auto work =
            hwy::AllocateAligned<float>(query_block_floats(static_cast<int32_t>(c.d), static_cast<int32_t>(n_rows)));
        attend_block({.head_dim = static_cast<int32_t>(c.d),
                      .n_rows = static_cast<int32_t>(n_rows),
                      .first = static_cast<int32_t>(n_rows) - 1,
                      .n_query = static_cast<int32_t>(c.n),
                      .k = c.k.stored.data(),
                      .q = c.q.data(),
                      .q_stride = c.d,
                      .scale = c.scale,
                      .sums = sums.data(),
                      .sum_weights = once.data(),
                      .squares = squares.data(),
                      .square_weights = twice.data()},
                     work.get());
        std::vector<double> expected_sums(n_rows, 1.0), expected_squares(n_rows, 2.0);
        for (size_t i = 0; i < c.n; ++i) {
            const std::vector<double> a = c.attention(i, n_rows);
            for (size_t t = 0; t < n_rows; ++t) {
                expected_sums[t] += static_cast<double>(once[i]) * a[t];
                expected_squares[t] += static_cast<double>(twice[i]) * a[t] * a[t];
            }
        }
        for (size_t t = 0; t < n_rows; ++t) {
            EXPECT_NEAR(static_cast<double>(sums[t]), expected_sums[t], 1e-4);
            EXPECT_NEAR(static_cast<double>(squares[t]), expected_squares[t], 1e-4);
        }
    });
}

TEST(PrefillKernel, LargeScoresDoNotOverflow) {
    std::mt19937 random(13);
    Case c(64, 300, 20, random);
    std::fill(c.q.begin(), c.q.end(), 1e5F);
    std::vector<float> sums;
    for (const float x : c.attend(0, c.n, &sums)) {
        EXPECT_TRUE(std::isfinite(x));
    }
    double total = 0;
    for (const float s : sums) {
        total += static_cast<double>(s);
    }
    EXPECT_NEAR(total, static_cast<double>(c.n), 1e-3);
}

}  // namespace
}  // namespace kvsieve
