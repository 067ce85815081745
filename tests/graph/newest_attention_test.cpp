// SPDX-License-Identifier: MIT
// The newest token's attention over a ragged cache, which decode policies are given, against masked attention in
// double; asking for it changes no logit.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "graph/naive_llama.h"
#include "graph/recorder.h"
#include "graph/tiny_run.h"

namespace kvsieve::test {
namespace {

class Newest : public testing::TestWithParam<std::tuple<KvType, bool, bool>> {};

TEST_P(Newest, EqualsMaskedAttention) {
    constexpr int32_t kPrompt = 70;
    const auto & [type, per_head, kernel] = GetParam();
    ModelShape shape = observed_shape();
    shape.head_dim = 64;  // rotated where quantised
    TempFile file(".gguf");
    write_model(shape, file.path());
    const std::vector<int32_t> tokens = some_tokens(kPrompt + 6, 21, shape.n_vocab);
    std::mt19937 random(22);
    Plan plan;
    for (int32_t il = 0; il < shape.n_layer; ++il) {
        LayerPlan & layer = plan.layers.emplace_back();
        for (int32_t g = 0; g < (per_head ? shape.n_head_kv : 1); ++g) {
            std::vector<int32_t> & kept = layer.kept.emplace_back();
            for (int32_t p = 0; p < kPrompt; ++p) {
                if (random() % 3 == 0) {
                    kept.push_back(p);
                }
            }
        }
    }
    const NaiveLlama::Result naive =
        NaiveLlama(file.path(), shape).run(tokens, [&](int32_t il, int32_t g, int32_t q, int32_t k) {
            const std::vector<int32_t> & kept = plan.layers[static_cast<size_t>(il)].of_head(g);
            return q < kPrompt || k >= kPrompt || std::binary_search(kept.begin(), kept.end(), k);
        });
    TinyRun run(file.path(), type), plain(file.path(), type);
    for (TinyRun * one : {&run, &plain}) {
        one->kernel = kernel;
        one->prefill(std::span(tokens).first(kPrompt));
        one->cache.compact(plan);
    }
    const double tolerance = type == KvType::f16 ? 1e-3 : type == KvType::q8_0 ? 6e-3 : 0.06;
    int32_t next = kPrompt;
    for (const int32_t n : {1, 4, 1}) {  // one token: all layers in one graph; several: one layer each
        const auto new_tokens = std::span(tokens).subspan(static_cast<size_t>(next), static_cast<size_t>(n));
        std::vector<float> residual = run.embed(new_tokens);
        std::vector<float> logits(static_cast<size_t>(shape.n_vocab));
        NewestAttention newest;
        forward(run.runner, *run.decoder, run.cache, residual, next, logits, {.newest = &newest, .kernel = kernel});
        EXPECT_EQ(logits, plain.extend(new_tokens)) << "watching changed the result";
        next += n;
        ASSERT_EQ(newest.size(), static_cast<size_t>(shape.n_layer));
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            const std::vector<float> & rows = newest[static_cast<size_t>(il)];
            size_t at = 0;
            for (int32_t h = 0; h < shape.n_head; ++h) {
                for (const int32_t position : run.cache.positions(il, h / (shape.n_head / shape.n_head_kv))) {
                    ASSERT_LT(at, rows.size());
                    ASSERT_NEAR(rows[at++],
                                naive.at(static_cast<size_t>(il), static_cast<size_t>(h), static_cast<size_t>(next) - 1,
                                         static_cast<size_t>(position)),
                                tolerance)
                        << il << " " << h << " " << position;
                }
            }
            EXPECT_EQ(at, rows.size());
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Types, Newest,
                         testing::Combine(testing::Values(KvType::f16, KvType::q8_0, KvType::q4_0), testing::Bool(),
                                          testing::Bool()));

}  // namespace
}  // namespace kvsieve::test
