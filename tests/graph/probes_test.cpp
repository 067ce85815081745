// SPDX-License-Identifier: MIT
// Attention of probe queries and norms behind the output projection, against plain double precision.
#include "graph/probes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graph/naive_llama.h"
#include "graph/recorder.h"
#include "graph/tiny_run.h"

namespace kvsieve::test {
namespace {

/// One head's query [d] at a position.
std::vector<double> rotated(std::span<const double> q, const RopeShape & rope, double position) {
    std::vector<double> out(q.begin(), q.end());
    const size_t m = rope.freqs.size();
    for (size_t i = 0; i < m; ++i) {
        const size_t a = rope.interleaved ? 2 * i : i, b = rope.interleaved ? 2 * i + 1 : i + m;
        const double angle = position * static_cast<double>(rope.freqs[i]);
        out[a] = q[a] * std::cos(angle) - q[b] * std::sin(angle);
        out[b] = q[a] * std::sin(angle) + q[b] * std::cos(angle);
    }
    return out;
}

/// Softmax of a query over all keys of a KV head.
std::vector<double> attend(std::span<const double> q, const std::vector<std::vector<double>> & keys, size_t g) {
    std::vector<double> out;
    double largest = -HUGE_VAL, sum = 0;
    for (const auto & key : keys) {
        double dot = 0;
        for (size_t i = 0; i < q.size(); ++i) {
            dot += q[i] * key[g * q.size() + i];
        }
        out.push_back(dot / std::sqrt(static_cast<double>(q.size())));
        largest = std::max(largest, out.back());
    }
    for (double & x : out) {
        sum += x = std::exp(x - largest);
    }
    for (double & x : out) {
        x /= sum;
    }
    return out;
}

Traits probe_traits() {
    Traits traits;
    traits.probes = true;
    traits.query_stats = true;  // for the frequencies
    return traits;
}

/// The prompt's own last `n_own` queries stand for the probes.
void expect_own_probes(const std::vector<uint8_t> & visual_mask, size_t n_own) {
    constexpr size_t kTokens = 300, d = 16, n_head = 4;
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kTokens, 3, shape.n_vocab);
    const NaiveLlama::Result naive = NaiveLlama(file.path(), shape).run(tokens);
    const Recorder recorder(probe_traits());
    TinyRun run(file.path());
    const OutputFactors factors(*run.decoder, 1);
    run.prefill(tokens, recorder, true, visual_mask, {.factors = &factors});
    const GgufEdit weights(file.path());
    for (size_t il = 0; il < 2; ++il) {
        const Recorder::Seen & seen = recorder.seen.at(il);
        const std::vector<float> w = weights.values("blk." + std::to_string(il) + ".attn_output.weight");
        ASSERT_EQ(seen.probe_mean.size(), n_head * kTokens);
        ASSERT_EQ(seen.probe_square.size(), n_head * kTokens);
        ASSERT_EQ(seen.output_norm.size(), n_head * kTokens);
        for (size_t h = 0; h < n_head; ++h) {
            std::vector<double> mean(kTokens, 0.0), square(kTokens, 0.0);
            for (size_t p = 0; p < n_own; ++p) {
                const auto & all = naive.queries[il][kTokens - n_own + p];
                const auto q = rotated(std::span(all).subspan(h * d, d), seen.rope, static_cast<double>(kTokens + p));
                const std::vector<double> row = attend(q, naive.keys[il], h / 2);
                for (size_t k = 0; k < kTokens; ++k) {
                    mean[k] += row[k] / static_cast<double>(n_own);
                    square[k] += row[k] * row[k] / static_cast<double>(n_own);
                }
            }
            for (size_t k = 0; k < kTokens; ++k) {
                ASSERT_NEAR(seen.probe_mean[h * kTokens + k], mean[k], 2e-3 * mean[k]) << il << " " << h << " " << k;
                ASSERT_NEAR(seen.probe_square[h * kTokens + k], square[k], 5e-3 * square[k]);
                double norm = 0;
                for (size_t e = 0; e < static_cast<size_t>(shape.n_embd); ++e) {
                    double x = 0;
                    for (size_t i = 0; i < d; ++i) {
                        x += naive.values[il][k][h / 2 * d + i] * static_cast<double>(w[e * n_head * d + h * d + i]);
                    }
                    norm += x * x;
                }
                ASSERT_NEAR(seen.output_norm[h * kTokens + k], std::sqrt(norm), 2e-3 * std::sqrt(norm) + 1e-5);
            }
        }
    }
}

TEST(Probes, ThePromptsOwnLastQueriesMoveBehindIt) {
    expect_own_probes({}, kOwnProbes);
}

TEST(Probes, OwnQueriesAreThoseBehindTheImageWhereThereAreAny) {
    std::vector<uint8_t> mask(300, 0);
    std::fill_n(mask.begin() + 4, 276, uint8_t{1});
    expect_own_probes(mask, 20);
    std::fill(mask.begin() + 4, mask.end(), uint8_t{1});
    expect_own_probes(mask, kOwnProbes);
}

TEST(Probes, DoNotDependOnTheNumberOfThreads) {
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(400, 5, shape.n_vocab);
    const Recorder one(probe_traits()), three(probe_traits());
    TinyRun a(file.path(), KvType::f16, true, 0, 1), b(file.path(), KvType::f16, true, 0, 3);
    const OutputFactors factors_a(*a.decoder, 1), factors_b(*b.decoder, 3);
    a.prefill(tokens, one, true, {}, {.factors = &factors_a});
    b.prefill(tokens, three, true, {}, {.factors = &factors_b});
    for (size_t il = 0; il < 2; ++il) {
        EXPECT_EQ(one.seen[il].probe_mean, three.seen[il].probe_mean);
        EXPECT_EQ(one.seen[il].probe_square, three.seen[il].probe_square);
        EXPECT_EQ(one.seen[il].output_norm, three.seen[il].output_norm);
    }
}

}  // namespace
}  // namespace kvsieve::test
