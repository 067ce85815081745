// SPDX-License-Identifier: MIT
// What a method sees of a prefill, against plain double-precision attention over the whole prompt.
#include <gtest/gtest.h>

#include <numeric>

#include "graph/naive_llama.h"
#include "graph/recorder.h"
#include "graph/tiny_run.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

TEST(Observation, EqualsPlainAttentionOverThreeChunks) {
    constexpr size_t kTokens = 1100;
    constexpr size_t kWindow = 40;
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kTokens, 3, shape.n_vocab);
    const NaiveLlama::Result naive = NaiveLlama(file.path(), shape).run(tokens);

    Traits traits;
    traits.importance = traits.colsum = traits.keys = traits.values = true;
    traits.rows = RowsWanted::last_window;
    traits.window = kWindow;
    const Recorder recorder(traits);
    TinyRun run(file.path());
    const std::vector<float> logits = run.prefill(tokens, recorder, true);

    for (size_t i = 0; i < logits.size(); ++i) {
        EXPECT_NEAR(logits[i], naive.logits.back()[i], 0.01) << i;
    }
    ASSERT_EQ(recorder.seen.size(), 2U);
    for (size_t il = 0; il < 2; ++il) {
        const Recorder::Seen & seen = recorder.seen[il];
        ASSERT_EQ(seen.importance.size(), kTokens);
        ASSERT_EQ(seen.colsum.size(), 4 * kTokens);
        double total = 0;
        for (size_t k = 0; k < kTokens; ++k) {
            double mean = 0;
            for (size_t h = 0; h < 4; ++h) {
                double sum = 0;
                for (size_t q = k; q < kTokens; ++q) {
                    sum += naive.at(il, h, q, k);
                }
                ASSERT_NEAR(seen.colsum[h * kTokens + k], sum, 2e-3 * (1.0 + sum)) << il << " " << h << " " << k;
                mean += sum / 4;
            }
            ASSERT_NEAR(seen.importance[k], mean, 2e-3 * (1.0 + mean)) << il << " " << k;
            total += static_cast<double>(seen.importance[k]);
        }
        EXPECT_NEAR(total, kTokens, 0.01) << "each of the queries spends 1";

        ASSERT_EQ(seen.row_positions.size(), kWindow);
        EXPECT_EQ(seen.row_positions.front(), static_cast<int32_t>(kTokens - kWindow));
        EXPECT_EQ(seen.row_positions.back(), static_cast<int32_t>(kTokens) - 1);
        ASSERT_EQ(seen.rows.size(), 4 * kWindow * kTokens);
        for (size_t h = 0; h < 4; ++h) {
            for (size_t i = 0; i < kWindow; ++i) {
                const size_t q = kTokens - kWindow + i;
                const float * row = seen.rows.data() + (h * kWindow + i) * kTokens;
                double sum = 0;
                for (size_t k = 0; k < kTokens; ++k) {
                    ASSERT_NEAR(row[k], naive.at(il, h, q, k), 2e-3 * naive.at(il, h, q, k) + 1e-6);
                    if (k > q) {
                        ASSERT_EQ(row[k], 0.0F) << "not causal";
                    }
                    sum += static_cast<double>(row[k]);
                }
                ASSERT_NEAR(sum, 1.0, 1e-5);
            }
        }
        ASSERT_EQ(seen.keys.size(), 2 * kTokens * 16);
        ASSERT_EQ(seen.values.size(), 2 * kTokens * 16);
        for (size_t g = 0; g < 2; ++g) {
            for (size_t t = 0; t < kTokens; ++t) {
                for (size_t c = 0; c < 16; ++c) {
                    ASSERT_NEAR(seen.keys[(g * kTokens + t) * 16 + c], naive.keys[il][t][g * 16 + c], 5e-3);
                    ASSERT_NEAR(seen.values[(g * kTokens + t) * 16 + c], naive.values[il][t][g * 16 + c], 5e-3);
                }
            }
        }
    }
}

TEST(Observation, RowsOfTheTextBehindTheLastVisualToken) {
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(50, 4, shape.n_vocab);
    std::vector<uint8_t> mask(50, 0);
    std::fill(mask.begin() + 5, mask.begin() + 40, uint8_t{1});
    Traits traits;
    traits.rows = RowsWanted::text_after_visual;
    const Recorder recorder(traits);
    TinyRun run(file.path());
    run.prefill(tokens, recorder, true, mask);
    std::vector<int32_t> expected(10);
    std::iota(expected.begin(), expected.end(), 40);
    EXPECT_EQ(recorder.seen[1].row_positions, expected);
    EXPECT_EQ(recorder.seen[1].rows.size(), 4U * 10 * 50);
    EXPECT_TRUE(recorder.seen[1].importance.empty()) << "computed although nobody asked";
    EXPECT_TRUE(recorder.seen[1].keys.empty());
}

TEST(Observation, DoesNotDependOnTheNumberOfThreads) {
    const ModelShape shape = observed_shape();
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(700, 5, shape.n_vocab);
    Traits traits;
    traits.importance = traits.colsum = traits.query_stats = true;
    const Recorder one(traits), three(traits);
    TinyRun a(file.path(), KvType::f16, true, 0, 1), b(file.path(), KvType::f16, true, 0, 3);
    EXPECT_EQ(a.prefill(tokens, one, true), b.prefill(tokens, three, true));
    for (size_t il = 0; il < 2; ++il) {
        EXPECT_EQ(one.seen[il].importance, three.seen[il].importance);
        EXPECT_EQ(one.seen[il].colsum, three.seen[il].colsum);
        EXPECT_EQ(one.seen[il].query_mean, three.seen[il].query_mean);
        EXPECT_EQ(one.seen[il].query_cov, three.seen[il].query_cov);
    }
}

}  // namespace
}  // namespace kvsieve::test
