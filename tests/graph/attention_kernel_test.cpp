// SPDX-License-Identifier: MIT
// The decode kernel against double precision over the rows as stored, for every instruction set that runs here.
#include "graph/attention_kernel.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "graph/targets.h"

namespace kvsieve {
namespace {

ggml_type type_of(KvType type) {
    return type == KvType::f16 ? GGML_TYPE_F16 : type == KvType::q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q4_0;
}

/// Rows as ggml stores them, and what they mean.
struct Rows {
    std::vector<uint8_t> bytes;
    std::vector<float> values;  // [n][d]
    size_t row_bytes = 0;

    Rows(KvType type, int32_t n, int32_t d, std::mt19937 & random) {
        std::normal_distribution<float> normal;
        values.resize(static_cast<size_t>(n) * static_cast<size_t>(d));
        for (float & x : values) {
            x = normal(random);
        }
        row_bytes = ggml_row_size(type_of(type), d);
        bytes.resize(row_bytes * static_cast<size_t>(n));
        if (n == 0) {
            return;
        }
        if (type == KvType::f16) {
            ggml_fp32_to_fp16_row(values.data(), reinterpret_cast<ggml_fp16_t *>(bytes.data()),
                                  static_cast<int64_t>(values.size()));
        } else {
            ggml_quantize_chunk(type_of(type), values.data(), bytes.data(), 0, n, d, nullptr);
        }
        ggml_get_type_traits(type_of(type))->to_float(bytes.data(), values.data(), static_cast<int64_t>(values.size()));
    }
};

struct Reference {
    std::vector<double> out;     // [d]
    std::vector<double> weight;  // [n], softmax
    double log_sum = 0;
};

Reference reference(const Rows & k, const Rows & v, const float * q, int32_t n, int32_t d, double scale) {
    Reference r{std::vector<double>(static_cast<size_t>(d)), std::vector<double>(static_cast<size_t>(n)), 0};
    const auto at = [d](const Rows & rows, int32_t t, int32_t e) {
        return static_cast<double>(
            rows.values[static_cast<size_t>(t) * static_cast<size_t>(d) + static_cast<size_t>(e)]);
    };
    for (int32_t t = 0; t < n; ++t) {
        for (int32_t e = 0; e < d; ++e) {
            r.weight[static_cast<size_t>(t)] += scale * static_cast<double>(q[e]) * at(k, t, e);
        }
    }
    const double max = *std::max_element(r.weight.begin(), r.weight.end());
    double sum = 0;
    for (double & w : r.weight) {
        w = std::exp(w - max);
        sum += w;
    }
    for (int32_t t = 0; t < n; ++t) {
        r.weight[static_cast<size_t>(t)] /= sum;
        for (int32_t e = 0; e < d; ++e) {
            r.out[static_cast<size_t>(e)] += r.weight[static_cast<size_t>(t)] * at(v, t, e);
        }
    }
    r.log_sum = max + std::log(sum);
    return r;
}

/// All ranges of an extent, merged: out [n_query][d]; weights as softmax [n_query][n].
struct Result {
    std::vector<float> out, weights;
    std::vector<PartialHead> heads;
};

Result attend(KvType type, const Rows & k, const Rows & v, const std::vector<float> & q, int32_t n, int32_t d,
              int32_t n_query, float scale) {
    const size_t stride = partial_floats(d);
    const auto query = static_cast<size_t>(n_query);
    const int32_t n_range = (n + kRangeSlots - 1) / kRangeSlots;
    std::vector<float> partial(static_cast<size_t>(n_range) * query * stride);
    Result r;
    r.out.resize(query * static_cast<size_t>(d));
    r.weights.resize(query * static_cast<size_t>(n));
    for (int32_t i = 0; i < n_range; ++i) {
        const int32_t first = i * kRangeSlots;
        const AttendRange range{.type = type,
                                .head_dim = d,
                                .n_rows = std::min(kRangeSlots, n - first),
                                .n_query = n_query,
                                .k = k.bytes.data() + static_cast<size_t>(first) * k.row_bytes,
                                .v = v.bytes.data() + static_cast<size_t>(first) * v.row_bytes,
                                .row_bytes = k.row_bytes,
                                .q = q.data(),
                                .scale = scale};
        attend_range(range, partial.data() + static_cast<size_t>(i) * query * stride,
                     r.weights.data() + static_cast<size_t>(first), static_cast<size_t>(n));
    }
    for (size_t h = 0; h < query; ++h) {
        r.heads.push_back(merge_ranges(partial.data() + h * stride, query * stride, n_range, d,
                                       r.out.data() + h * static_cast<size_t>(d)));
        normalise_weights(partial.data() + h * stride, query * stride, r.heads[h], n,
                          r.weights.data() + h * static_cast<size_t>(n));
    }
    return r;
}

TEST(AttentionKernel, EqualsDoublePrecisionOverRandomShapes) {
    on_every_target(attention_kernel_target, [] {
        std::mt19937 random(7);
        for (int round = 0; round < 60; ++round) {
            const auto type = static_cast<KvType>(random() % 3);
            const int32_t dims[] = {32, 64, 96, 128, 256, 80, 40, 8};
            const int32_t d = dims[random() % (type == KvType::f16 ? 8 : 5)];
            const auto n = static_cast<int32_t>(std::exp2(static_cast<double>(random() % 1000) / 100)) + 1;
            const auto n_query = static_cast<int32_t>(random() % 9) + 1;
            SCOPED_TRACE(std::string(kv_type_name(type)) + " d " + std::to_string(d) + " rows " + std::to_string(n) +
                         " queries " + std::to_string(n_query));
            const Rows k(type, n, d, random), v(type, n, d, random);
            std::vector<float> q(static_cast<size_t>(n_query) * static_cast<size_t>(d));
            std::normal_distribution<float> normal(0, 3);
            for (float & x : q) {
                x = normal(random);
            }
            const float scale = 1 / std::sqrt(static_cast<float>(d));
            const Result result = attend(type, k, v, q, n, d, n_query, scale);
            for (int32_t h = 0; h < n_query; ++h) {
                const auto at = static_cast<size_t>(h);
                const Reference expected =
                    reference(k, v, q.data() + at * static_cast<size_t>(d), n, d, static_cast<double>(scale));
                EXPECT_NEAR(static_cast<double>(result.heads[at].max + std::log(result.heads[at].sum)),
                            expected.log_sum, 2e-5);
                for (int32_t e = 0; e < d; ++e) {
                    EXPECT_NEAR(static_cast<double>(result.out[at * static_cast<size_t>(d) + static_cast<size_t>(e)]),
                                expected.out[static_cast<size_t>(e)], 2e-5);
                }
                for (int32_t t = 0; t < n; ++t) {
                    EXPECT_NEAR(
                        static_cast<double>(result.weights[at * static_cast<size_t>(n) + static_cast<size_t>(t)]),
                        expected.weight[static_cast<size_t>(t)], 2e-5);
                }
            }
        }
    });
}

TEST(AttentionKernel, IsTheSameWhereverRowsLie) {
    std::mt19937 random(3);
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        const int32_t n = 300, d = 128, n_query = 7;
        const Rows k(type, n, d, random), v(type, n, d, random);
        std::vector<float> q(static_cast<size_t>(n_query * d));
        for (float & x : q) {
            x = static_cast<float>(random() % 1000) / 300;
        }
        const Result first = attend(type, k, v, q, n, d, n_query, 0.1F);
        std::vector<uint8_t> shifted(k.bytes.size() + 2);
        std::copy(k.bytes.begin(), k.bytes.end(), shifted.begin() + 2);
        std::vector<float> partial(static_cast<size_t>(n_query) * partial_floats(d));
        std::vector<float> expected = partial;
        AttendRange range{.type = type,
                          .head_dim = d,
                          .n_rows = kRangeSlots,
                          .n_query = n_query,
                          .k = k.bytes.data(),
                          .v = v.bytes.data(),
                          .row_bytes = k.row_bytes,
                          .q = q.data(),
                          .scale = 0.1F};
        attend_range(range, expected.data(), nullptr, 0);
        range.k = shifted.data() + 2;
        attend_range(range, partial.data(), nullptr, 0);
        EXPECT_EQ(partial, expected) << kv_type_name(type);
        EXPECT_EQ(attend(type, k, v, q, n, d, n_query, 0.1F).out, first.out) << kv_type_name(type);
    }
}

TEST(AttentionKernel, LargeScoresDoNotOverflow) {
    std::mt19937 random(5);
    const int32_t n = 600, d = 64;
    const Rows k(KvType::f16, n, d, random), v(KvType::f16, n, d, random);
    std::vector<float> q(static_cast<size_t>(d), 1e4F);
    const Result result = attend(KvType::f16, k, v, q, n, d, 1, 1.0F);
    for (const float x : result.out) {
        EXPECT_TRUE(std::isfinite(x));
    }
    EXPECT_NEAR(static_cast<double>(std::accumulate(result.weights.begin(), result.weights.end(), 0.0F)), 1.0, 1e-4);
}

}  // namespace
}  // namespace kvsieve
