// SPDX-License-Identifier: MIT
// The attention of one new token over ragged extents, appended row included: the kernel's two nodes against double
// precision over the rows as stored and against ggml's operation, and bit for bit whatever the number of threads.
#include "graph/decode_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>

#include "graph/ragged_attention.h"

namespace kvsieve {
namespace {

constexpr int32_t kPrompt = 700;     // up to three ranges
constexpr double kGgmlBound = 0.02;  // ggml rounds the query to the rows' type and adds f16 values in f16

struct Heads {
    int32_t n_head, n_head_kv, head_dim;
};

struct Kind {
    KvType type;
    bool rotate;
};

std::vector<float> normal(size_t n, uint32_t seed, float deviation = 1.0F) {
    std::mt19937 random(seed);
    std::normal_distribution<float> distribution(0, deviation);
    std::vector<float> out(n);
    for (float & x : out) {
        x = distribution(random);
    }
    return out;
}

/// One layer whose heads hold between 1 and kPrompt rows, and a new token.
struct Layer {
    DecoderConfig config;
    RaggedKvCache cache;
    std::vector<float> q, k, v;  // [heads][d] of the new token

    Layer(const Heads & heads, const Kind & kind)
        : cache({1, heads.n_head_kv, heads.head_dim, kind.type, kind.rotate}),
          q(normal(static_cast<size_t>(heads.n_head * heads.head_dim), 1, 2.0F)),
          k(normal(static_cast<size_t>(heads.n_head_kv * heads.head_dim), 2)),
          v(normal(static_cast<size_t>(heads.n_head_kv * heads.head_dim), 3)) {
        config.n_layer = 1;
        config.n_head = heads.n_head;
        config.n_head_kv = heads.n_head_kv;
        config.head_dim = heads.head_dim;
        config.kq_scale = 1 / std::sqrt(static_cast<float>(heads.head_dim));
        const auto f16 = [&](uint32_t seed) {
            const std::vector<float> rows = normal(size_t{kPrompt} * k.size(), seed);
            std::vector<ggml_fp16_t> out(rows.size());
            ggml_fp32_to_fp16_row(rows.data(), out.data(), static_cast<int64_t>(rows.size()));
            return out;
        };
        const std::vector<ggml_fp16_t> keys = f16(4), values = f16(5);
        LayerPlan plan;
        std::mt19937 random(6);
        for (int32_t g = 0; g < config.n_head_kv; ++g) {
            std::vector<int32_t> all(kPrompt);
            std::iota(all.begin(), all.end(), 0);
            std::shuffle(all.begin(), all.end(), random);
            all.resize(g == 0 ? 255 : 1 + random() % kPrompt);  // 255: the new row fills a range
            std::sort(all.begin(), all.end());
            plan.kept.push_back(all);
        }
        cache.store_layer(0, {.data = keys.data()}, {.data = values.data()}, kPrompt, &plan);
    }

    /// Output [H][d]; the cache is as before afterwards.
    std::vector<float> run(int32_t n_threads, bool kernel, NewestAttention * newest) {
        std::vector<float> out(q.size());
        GraphRunner runner(n_threads);
        RaggedAttention attention(cache, config, 1, kPrompt, {newest, kernel});
        runner.run(512, [&](GraphBuilder & b) {
            Qkv qkv;
            qkv.q = b.external(GGML_TYPE_F32, config.head_dim, config.n_head, 1, q.data());
            qkv.k = b.external(GGML_TYPE_F32, config.head_dim, config.n_head_kv, 1, k.data());
            qkv.v = b.external(GGML_TYPE_F32, config.head_dim, config.n_head_kv, 1, v.data());
            ggml_tensor * heads = attention.build(b, 0, qkv);
            b.expand(ggml_cpy(b.ctx, heads, b.external(GGML_TYPE_F32, heads->ne[0], 1, 1, out.data())));
        });
        attention.check();
        appended_ = cache.snapshot();
        cache.truncate(kPrompt);
        return out;
    }

    struct Reference {
        std::vector<double> out;     // [H][d]
        std::vector<double> newest;  // [H][rows of the head's KV head]
    };
    /// Over the rows that run() attended to, dequantised and rotated back.
    [[nodiscard]] Reference reference() const {
        const auto d = static_cast<size_t>(config.head_dim);
        Reference result;
        for (int32_t h = 0; h < config.n_head; ++h) {
            const int32_t g = h / (config.n_head / config.n_head_kv);
            const auto n = static_cast<size_t>(appended_->n_rows(0, g));
            std::vector<int32_t> slots(n);
            std::iota(slots.begin(), slots.end(), 0);
            std::vector<float> keys(n * d), values(n * d);
            appended_->read_rows_f32(0, g, slots, keys, values);
            std::vector<double> weight(n);
            for (size_t t = 0; t < n; ++t) {
                for (size_t e = 0; e < d; ++e) {
                    weight[t] += static_cast<double>(q[static_cast<size_t>(h) * d + e]) *
                                 static_cast<double>(keys[t * d + e]) * static_cast<double>(config.kq_scale);
                }
            }
            const double max = *std::max_element(weight.begin(), weight.end());
            double sum = 0;
            for (double & w : weight) {
                sum += w = std::exp(w - max);
            }
            std::vector<double> out(d);
            for (size_t t = 0; t < n; ++t) {
                weight[t] /= sum;
                for (size_t e = 0; e < d; ++e) {
                    out[e] += weight[t] * static_cast<double>(values[t * d + e]);
                }
            }
            result.out.insert(result.out.end(), out.begin(), out.end());
            result.newest.insert(result.newest.end(), weight.begin(), weight.end());
        }
        return result;
    }

  private:
    std::optional<RaggedKvCache> appended_;  // with the new row
};

template <typename T>
double max_difference(const std::vector<float> & a, const std::vector<T> & b) {
    EXPECT_EQ(a.size(), b.size());
    double worst = 0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    return worst;
}

class Decode : public testing::TestWithParam<std::tuple<Heads, Kind>> {};

TEST_P(Decode, EqualsDoublePrecisionWithAnyNumberOfThreads) {
    const auto & [heads, kind] = GetParam();
    Layer layer(heads, kind);
    NewestAttention newest(1);
    const std::vector<float> out = layer.run(1, true, &newest);
    const Layer::Reference expected = layer.reference();
    const double difference = max_difference(out, expected.out);
    const std::vector<float> ggml = layer.run(1, false, nullptr);
    RecordProperty("kernel", std::to_string(difference));
    RecordProperty("ggml", std::to_string(max_difference(ggml, expected.out)));
    EXPECT_LE(difference, 5e-5);
    EXPECT_LE(max_difference(newest[0], expected.newest), 2e-5);
    EXPECT_LE(max_difference(ggml, out), kGgmlBound);
    for (const int32_t n_threads : {2, 3, 7}) {
        NewestAttention again(1);
        EXPECT_EQ(layer.run(n_threads, true, &again), out) << n_threads << " threads";
        EXPECT_EQ(again, newest) << n_threads << " threads";
    }
    EXPECT_EQ(layer.run(2, true, nullptr), out) << "watching changed the result";
}

std::string case_name(const testing::TestParamInfo<Decode::ParamType> & info) {
    const auto & [heads, kind] = info.param;
    return std::to_string(heads.n_head) + "_on_" + std::to_string(heads.n_head_kv) + "_" +
           std::string(kv_type_name(kind.type)) + (kind.rotate ? "" : "_plain");
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Decode,
    testing::Combine(testing::Values(Heads{28, 4, 128}, Heads{16, 16, 128}, Heads{9, 3, 64}, Heads{32, 1, 96}),
                     testing::Values(Kind{KvType::f16, true}, Kind{KvType::q8_0, true}, Kind{KvType::q8_0, false},
                                     Kind{KvType::q4_0, true}, Kind{KvType::q4_0, false})),
    case_name);

}  // namespace
}  // namespace kvsieve
