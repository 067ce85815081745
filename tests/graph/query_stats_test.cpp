// SPDX-License-Identifier: MIT
// Statistics of the queries before RoPE against a direct computation, and the frequencies that methods are told against
// what ggml's RoPE does.
#include <gtest/gtest.h>

#include <cmath>

#include "graph/naive_llama.h"
#include "graph/query_stats.h"
#include "graph/recorder.h"
#include "graph/tiny_run.h"

namespace kvsieve::test {
namespace {

Traits stats_traits(int32_t n_sink) {
    Traits traits;
    traits.query_stats = true;
    traits.n_sink = n_sink;
    return traits;
}

/// Mean and covariance (divisor n - n_sink) of the queries, in two passes.
void expect_stats(const Recorder::Seen & seen, const std::vector<std::vector<double>> & queries, size_t n_head,
                  size_t n_sink, double magnitude) {
    const size_t d = queries.front().size() / n_head;
    const auto n = static_cast<double>(queries.size() - n_sink);
    ASSERT_EQ(seen.query_mean.size(), n_head * d);
    ASSERT_EQ(seen.query_cov.size(), n_head * d * d);
    for (size_t h = 0; h < n_head; ++h) {
        std::vector<double> mean(d, 0.0);
        for (size_t t = n_sink; t < queries.size(); ++t) {
            for (size_t i = 0; i < d; ++i) {
                mean[i] += magnitude * queries[t][h * d + i] / n;
            }
        }
        for (size_t i = 0; i < d; ++i) {
            ASSERT_NEAR(seen.query_mean[h * d + i], mean[i], 2e-4) << h << " " << i;
            for (size_t j = 0; j < d; ++j) {
                double product = 0;
                for (size_t t = n_sink; t < queries.size(); ++t) {
                    product += (magnitude * queries[t][h * d + i] - mean[i]) *
                               (magnitude * queries[t][h * d + j] - mean[j]) / n;
                }
                ASSERT_NEAR(seen.query_cov[(h * d + i) * d + j], product, 1e-3 * (1.0 + std::abs(product)));
            }
        }
    }
}

TEST(QueryStats, EqualADirectComputationOverThreeChunks) {
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(1100, 3, shape.n_vocab);
    const NaiveLlama::Result naive = NaiveLlama(file.path(), shape).run(tokens);
    for (const int32_t n_sink : {0, 4, 600}) {  // the last one skips the first chunk
        const Recorder recorder(stats_traits(n_sink));
        TinyRun run(file.path());
        run.prefill(tokens, recorder, true);
        for (size_t il = 0; il < 2; ++il) {
            expect_stats(recorder.seen[il], naive.queries[il], 4, static_cast<size_t>(n_sink), 1.0);
        }
        EXPECT_EQ(recorder.seen[0].rope.freqs.size(), 8U);
    }
    const Recorder none({});
    TinyRun run(file.path());
    run.prefill(tokens, none, true);
    EXPECT_TRUE(none.seen[0].query_mean.empty()) << "computed although nobody asked";
    EXPECT_TRUE(none.seen[0].rope.freqs.empty());
}

TEST(QueryStats, HaveTheFactorOfYarn) {
    ModelShape shape = observed_shape();
    shape.rope_scaling = RopeScaling::yarn;
    shape.rope_factor = 4.0F;
    TempFile file(".gguf");
    write_model(shape, file.path(), [](GgufEdit & edit) { edit.set("llama.rope.scaling.attn_factor", 1.25F); });
    const std::vector<int32_t> tokens = some_tokens(60, 3, shape.n_vocab);
    const NaiveLlama::Result naive = NaiveLlama(file.path(), shape).run(tokens);
    const Recorder recorder(stats_traits(4));
    TinyRun run(file.path());
    run.prefill(tokens, recorder, true);
    const double magnitude = rope_magnitude(run.config().rope);
    EXPECT_GT(std::abs(magnitude - 1.0), 0.05);
    expect_stats(recorder.seen[0], naive.queries[0], 4, 4, magnitude);  // the first layer's do not depend on RoPE
}

struct Rope {
    std::string name;
    RopeScaling scaling;
    bool factors;
    float attn_factor;
};

class Frequencies : public testing::TestWithParam<Rope> {};

TEST_P(Frequencies, AreWhatTheModelRotatesBy) {
    ModelShape shape = observed_shape();
    shape.head_dim = 32;
    shape.rope_scaling = GetParam().scaling;
    shape.rope_factor = GetParam().scaling == RopeScaling::none ? 1.0F : 8.0F;
    shape.rope_freqs = GetParam().factors;
    TempFile file(".gguf");
    write_model(shape, file.path(), [](GgufEdit & edit) {
        edit.set("llama.rope.scaling.attn_factor", GetParam().attn_factor);
        edit.set("llama.rope.scaling.original_context_length", uint32_t{256});
    });
    TinyRun run(file.path());
    const RopeShape stated = rope_shape(*run.decoder);
    const double magnitude = rope_magnitude(run.config().rope);
    ASSERT_EQ(stated.freqs.size(), 16U);
    EXPECT_TRUE(stated.interleaved);
    for (int32_t position : {1, 2}) {
        std::vector<float> x(32, 0.0F), y(32);
        for (size_t i = 0; i < 32; i += 2) {
            x[i] = 1.0F;
        }
        std::vector<float> factors(16);
        const float * given = run.decoder->rope_factors(0);
        std::copy_n(given != nullptr ? given : factors.data(), 16, factors.begin());
        run.runner.run(8, [&](GraphBuilder & b) {
            ggml_tensor * in = b.external(GGML_TYPE_F32, 32, 1, 1, x.data());
            ggml_tensor * out = rope(b, run.config().rope, in, b.external(GGML_TYPE_I32, 1, 1, 1, &position),
                                     given != nullptr ? b.external(GGML_TYPE_F32, 16, 1, 1, factors.data()) : nullptr);
            b.expand(ggml_cpy(b.ctx, out, b.external(GGML_TYPE_F32, 32, 1, 1, y.data())));
        });
        for (size_t i = 0; i < 16; ++i) {
            const auto cosine = static_cast<double>(y[2 * i]), sine = static_cast<double>(y[2 * i + 1]);
            EXPECT_NEAR(std::hypot(cosine, sine), magnitude, 1e-5) << i;
            EXPECT_NEAR(std::atan2(sine, cosine), position * static_cast<double>(stated.freqs[i]), 2e-6) << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Ropes, Frequencies,
                         testing::Values(Rope{"plain", RopeScaling::none, false, 1.0F},
                                         Rope{"linear", RopeScaling::linear, false, 1.0F},
                                         Rope{"yarn", RopeScaling::yarn, false, 1.0F},
                                         Rope{"yarn_factor", RopeScaling::yarn, true, 1.5F},
                                         Rope{"factors", RopeScaling::none, true, 0.75F}),
                         [](const auto & variant) { return variant.param.name; });

}  // namespace
}  // namespace kvsieve::test
