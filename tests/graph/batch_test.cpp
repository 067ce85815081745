// SPDX-License-Identifier: MIT
// A decode step of several sequences at once against each of them alone: their attention bit for bit, their logits
// within what a matrix multiplication of several columns rounds differently.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>

#include "graph/tiny_run.h"
#include "support/logits.h"
#include "support/random_model.h"

namespace kvsieve::test {
namespace {

struct Kind {
    KvType type;
    bool rotate;
    size_t n_prompt;
};
constexpr std::array<Kind, 5> kLanes{{{KvType::f16, true, 40},
                                      {KvType::q8_0, true, 300},
                                      {KvType::q4_0, true, 5},
                                      {KvType::f16, true, 600},
                                      {KvType::q8_0, false, 256}}};

const std::filesystem::path & model_file() {
    static const TempFile file(".gguf");
    static const bool written = [] {
        write_model(narrow_shape(3, 2048), file.path());
        return true;
    }();
    static_cast<void>(written);
    static const std::filesystem::path path = file.path();
    return path;
}

std::unique_ptr<TinyRun> prefilled(size_t lane, double keep) {
    const Kind & kind = kLanes[lane];
    auto run = std::make_unique<TinyRun>(model_file(), kind.type, kind.rotate);
    const auto tokens = some_tokens(kind.n_prompt, static_cast<uint32_t>(lane) + 1, run->config().n_vocab);
    if (keep < 1.0) {
        static_cast<void>(run->prefill(tokens, *make_method("h2o", {.keep = keep}), true));
    } else {
        static_cast<void>(run->prefill(tokens));
    }
    return run;
}

class Batch : public testing::TestWithParam<int32_t> {};

TEST_P(Batch, EverySequenceIsAsIfItWereAlone) {
    const int32_t n_threads = GetParam();
    TinyRun first(model_file(), KvType::f16, true, 0, n_threads);  // whose decoder and threads the batch uses
    const auto n_embd = static_cast<size_t>(first.config().n_embd);
    std::vector<std::unique_ptr<TinyRun>> together, alone;
    for (size_t i = 0; i < kLanes.size(); ++i) {
        together.push_back(prefilled(i, i == 1 ? 0.3 : 1.0));
        alone.push_back(prefilled(i, i == 1 ? 0.3 : 1.0));
    }
    for (int32_t step = 0; step < 6; ++step) {
        // lane 2 leaves after the third step
        std::vector<size_t> running = {0, 1, 2, 3, 4};
        if (step >= 3) {
            running.erase(running.begin() + 2);
        }
        std::vector<int32_t> tokens;
        std::vector<BatchLane> lanes;
        std::vector<NewestAttention> newest(kLanes.size());
        std::vector<std::vector<float>> logits(kLanes.size(), std::vector<float>(270));
        for (const size_t i : running) {
            tokens.push_back(20 + 31 * step + 7 * static_cast<int32_t>(i));
            TinyRun & run = *together[i];
            lanes.push_back({{&run.cache, run.n_processed, i % 2 == 0 ? &newest[i] : nullptr}, logits[i]});
            ++run.n_processed;
        }
        std::vector<float> residual(tokens.size() * n_embd);
        embed_tokens(first.runner, *first.decoder, tokens, residual);
        forward_batch(first.runner, *first.decoder, lanes, residual);
        for (size_t at = 0; at < running.size(); ++at) {
            TinyRun & run = *alone[running[at]];
            const std::vector<float> expected = run.extend(std::span(tokens).subspan(at, 1));
            EXPECT_LT(max_difference(std::span<const float>(expected), std::span<const float>(logits[running[at]])),
                      1e-3)
                << "step " << step << " lane " << running[at];
        }
    }
    for (size_t i = 0; i < kLanes.size(); ++i) {
        for (int32_t il = 0; il < first.config().n_layer; ++il) {
            const auto a = together[i]->cache.positions(il, 1), b = alone[i]->cache.positions(il, 1);
            EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
        }
    }
}
INSTANTIATE_TEST_SUITE_P(Threads, Batch, testing::Values(1, 2, 3));

/// Output [H d] of each lane for queries, keys and values that are the same for a lane in any company.
std::vector<std::vector<float>> attend(std::span<TinyRun * const> runs, std::span<const size_t> ids, int32_t n_threads,
                                       std::vector<NewestAttention> & newest) {
    const DecoderConfig & config = runs[0]->config();
    const auto values = [&](size_t heads, uint32_t salt) {
        std::vector<float> out;
        for (const size_t id : ids) {
            for (const int32_t token : some_tokens(heads * static_cast<size_t>(config.head_dim),
                                                   static_cast<uint32_t>(id) * 10 + salt, 270)) {
                out.push_back(static_cast<float>(token - 137) / 100.0F);
            }
        }
        return out;
    };
    std::vector<float> q = values(4, 1), k = values(2, 2), v = values(2, 3);
    std::vector<float> out(q.size());
    newest.assign(runs.size(), {});
    std::vector<Lane> lanes;
    for (size_t i = 0; i < runs.size(); ++i) {
        lanes.push_back({&runs[i]->cache, runs[i]->n_processed, &newest[i]});
    }
    const auto n = static_cast<int64_t>(runs.size());
    LaneAttention attention(lanes, config);
    GraphRunner runner(n_threads);
    runner.run(64, [&](GraphBuilder & b) {
        Qkv qkv;
        qkv.q = b.external(GGML_TYPE_F32, config.head_dim, 4, n, q.data());
        qkv.k = b.external(GGML_TYPE_F32, config.head_dim, 2, n, k.data());
        qkv.v = b.external(GGML_TYPE_F32, config.head_dim, 2, n, v.data());
        ggml_tensor * heads = attention.build(b, 0, qkv);
        b.expand(ggml_cpy(b.ctx, heads, b.external(GGML_TYPE_F32, heads->ne[0], n, 1, out.data())));
    });
    attention.check();
    for (TinyRun * run : runs) {
        run->cache.truncate(run->n_processed);
    }
    std::vector<std::vector<float>> split;
    for (size_t i = 0; i < runs.size(); ++i) {
        const auto begin = out.begin() + static_cast<int64_t>(i * out.size() / runs.size());
        split.emplace_back(begin, begin + static_cast<int64_t>(out.size() / runs.size()));
    }
    return split;
}

TEST(BatchAttention, NeighboursAndThreadsChangeNoBit) {
    std::vector<std::unique_ptr<TinyRun>> owned;
    std::vector<TinyRun *> runs;
    std::vector<size_t> ids;
    for (size_t i = 0; i < kLanes.size(); ++i) {
        owned.push_back(prefilled(i, 1.0));
        runs.push_back(owned.back().get());
        ids.push_back(i);
    }
    std::vector<NewestAttention> newest;
    const auto together = attend(runs, ids, 3, newest);
    for (size_t i = 0; i < runs.size(); ++i) {
        std::vector<NewestAttention> own;
        EXPECT_EQ(attend(std::span(runs).subspan(i, 1), std::span(ids).subspan(i, 1), 1, own)[0], together[i]) << i;
        EXPECT_EQ(own[0], newest[i]) << i;
    }
}

}  // namespace
}  // namespace kvsieve::test
