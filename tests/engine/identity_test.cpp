// SPDX-License-Identifier: MIT
// What must be equal bit for bit: a forced observation and compaction that keeps everything against `full`, repeated
// runs, a session after a refused or cancelled turn against a fresh one.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/answers.h"
#include "kvsieve/error.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

std::shared_ptr<const Model> embedded() {
    static const std::shared_ptr<const Model> model = Model::load(embedded_pair());
    return model;
}

Turn some_turn() {
    return {"What is at the bottom left?", {std::filesystem::path(KVSIEVE_MODELS_DIR) / "examples" / "shapes_1.png"}};
}

/// Logits of the prompt and of n steps that feed fixed tokens.
Logits run(Session & session, int32_t n_steps) {
    const auto copy = [](std::span<const float> logits) { return std::vector<float>(logits.begin(), logits.end()); };
    Logits out{copy(session.feed(some_turn(), true))};
    for (int32_t i = 0; i < n_steps; ++i) {
        const int32_t token = 10 + 7 * i % 200;
        out.push_back(copy(session.feed(std::span<const int32_t>(&token, 1))));
    }
    return out;
}

class Identity : public testing::TestWithParam<std::tuple<std::string, KvType>> {};

TEST_P(Identity, ForcedCompactionThatKeepsEverythingEqualsFull) {
    const auto & [method, type] = GetParam();
    SessionOptions options;
    options.kv_type = type;
    Session full(embedded(), options);
    options.method = method;
    options.force_compaction = true;
    options.method_options.keep = 1.0;
    Session forced(embedded(), options);
    const Logits a = run(full, 50);
    const Logits b = run(forced, 50);
    EXPECT_TRUE(a == b) << "max difference " << max_difference(a, b);
    EXPECT_EQ(full.usage().rows, forced.usage().rows);
    ASSERT_NE(forced.plan(), nullptr);
    for (const LayerPlan & layer : forced.plan()->layers) {
        EXPECT_EQ(layer.of_head(0).size(), static_cast<size_t>(forced.prompt_shape().n_tokens));
    }
}

std::vector<std::string> method_names() {
    std::vector<std::string> names;
    for (const MethodInfo & info : methods()) {
        names.emplace_back(info.name);
    }
    return names;
}

INSTANTIATE_TEST_SUITE_P(Methods, Identity,
                         testing::Combine(testing::ValuesIn(method_names()),
                                          testing::Values(KvType::f16, KvType::q8_0, KvType::q4_0)),
                         [](const auto & variant) {
                             return std::get<0>(variant.param) + "_" +
                                    std::string(kv_type_name(std::get<1>(variant.param)));
                         });

class Repeat : public testing::TestWithParam<std::string> {};

TEST_P(Repeat, SamePlanAndSameLogits) {
    SessionOptions options;
    options.method = GetParam();
    options.method_options.keep = 0.3;
    if (method_info(options.method).keep_of.empty()) {
        options.method_options.keep = 1.0;
    }
    Session first(embedded(), options);
    Session second(embedded(), options);
    const Logits a = run(first, 10);
    EXPECT_TRUE(a == run(second, 10));
    EXPECT_EQ(first.plan()->layers, second.plan()->layers);
    const Plan plan = *first.plan();
    first.reset();
    EXPECT_EQ(first.n_processed(), 0);
    EXPECT_EQ(first.usage().bytes_reserved, 0U);
    EXPECT_TRUE(a == run(first, 10)) << "after reset()";
    EXPECT_EQ(first.plan()->layers, plan.layers);
}

TEST_P(Repeat, RowsHeldAreThePlansAndLittleMoreIsReserved) {
    SessionOptions options;
    options.method = GetParam();
    options.method_options.keep = method_info(options.method).keep_of.empty() ? 1.0 : 0.2;
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        options.kv_type = type;
        Session session(embedded(), options);
        run(session, 0);
        const KvUsage usage = session.usage();
        const ModelInfo & info = embedded()->info();
        uint64_t rows = 0;
        for (int32_t il = 0; il < info.n_layer; ++il) {
            for (int32_t g = 0; g < info.n_head_kv; ++g) {
                const auto & kept = session.plan()->layers[static_cast<size_t>(il)].of_head(g);
                EXPECT_EQ(session.positions(il, g), kept);
                EXPECT_EQ(usage.rows_of[static_cast<size_t>(il)][static_cast<size_t>(g)],
                          static_cast<int32_t>(kept.size()));
                rows += kept.size();
            }
        }
        EXPECT_EQ(usage.rows, rows);
        const uint64_t row_bytes = usage.bytes_held / rows;
        EXPECT_EQ(usage.bytes_held, rows * row_bytes);
        const auto extents = static_cast<uint64_t>(info.n_layer) * static_cast<uint64_t>(info.n_head_kv);
        constexpr uint64_t kPage = 4096;
        EXPECT_LE(usage.bytes_reserved,
                  usage.bytes_held + extents * 32 * row_bytes + static_cast<uint64_t>(info.n_layer) * kPage);
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, Repeat, testing::ValuesIn(method_names()),
                         [](const auto & variant) { return variant.param; });

TEST(DecodeTimeEviction, LeavesWhatSimulateDecodeSays) {
    constexpr int32_t kSteps = 300;
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.3;
    for (const bool at_once : {false, true}) {
        Session session(embedded(), options);
        run(session, 0);
        const Plan plan = *session.plan();
        ASSERT_FALSE(plan.decode.empty());
        const int32_t n_prompt = session.n_processed();
        std::vector<int32_t> tokens(kSteps);
        for (int32_t i = 0; i < kSteps; ++i) {
            tokens[static_cast<size_t>(i)] = 10 + 7 * i % 200;
        }
        if (at_once) {
            session.feed(tokens);
        } else {
            for (const int32_t token : tokens) {
                session.feed(std::span<const int32_t>(&token, 1));
            }
        }
        const DecodeTrace trace = simulate_decode(plan, n_prompt, kSteps);
        size_t n_removed = 0;
        for (int32_t il = 0; il < embedded()->info().n_layer; ++il) {
            const auto i = static_cast<size_t>(il);
            std::vector<int32_t> expected = plan.layers[i].of_head(0);
            for (int32_t p = n_prompt; p < n_prompt + kSteps; ++p) {
                expected.push_back(p);
            }
            for (const DecodeRemoval & removal : trace.removed[i]) {
                std::erase(expected, removal.position);
            }
            n_removed += trace.removed[i].size();
            for (int32_t g = 0; g < embedded()->info().n_head_kv; ++g) {
                std::vector<int32_t> held = session.positions(il, g);
                std::sort(held.begin(), held.end());
                EXPECT_EQ(held, expected) << "layer " << il << " head " << g;
            }
        }
        EXPECT_GT(n_removed, static_cast<size_t>(kSteps));
    }
}

void expect_like_fresh(Session & session, const SessionOptions & options) {
    EXPECT_EQ(session.n_processed(), 0);
    EXPECT_EQ(session.plan(), nullptr);
    EXPECT_EQ(session.usage().rows, 0U);
    EXPECT_EQ(session.usage().bytes_reserved, 0U);
    EXPECT_TRUE(session.images().empty());
    Session fresh(embedded(), options);
    EXPECT_TRUE(run(session, 3) == run(fresh, 3));
}

TEST(RefusedTurn, LeavesAFreshSessionFresh) {
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.3;
    for (const int stop_at : {1, 2, 5}) {
        Session session(embedded(), options);
        int asked = 0;
        Callbacks callbacks;
        callbacks.is_cancelled = [&] { return ++asked >= stop_at; };
        EXPECT_THROW((void)session.ask(some_turn(), {}, callbacks), Error);
        expect_like_fresh(session, options);
    }
    Session session(embedded(), options);
    EXPECT_THROW((void)session.ask({"What?", {"/nowhere.png"}}, {}), Error);
    EXPECT_THROW((void)session.ask({"", {}}, {}), Error);
    expect_like_fresh(session, options);

    options.n_ctx = 50;
    Session small(embedded(), options);
    EXPECT_THROW((void)small.ask(some_turn(), {}), Error);
    EXPECT_EQ(small.n_processed(), 0);
    EXPECT_EQ(small.usage().rows, 0U);
}

TEST(RefusedTurn, LeavesAConversationAsItWas) {
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.3;
    GenerateOptions few;
    few.n_predict = 8;
    Session a(embedded(), options), b(embedded(), options);
    (void)a.ask(some_turn(), few);
    (void)b.ask(some_turn(), few);
    const KvUsage before = a.usage();
    Callbacks callbacks;
    callbacks.is_cancelled = [] { return true; };
    EXPECT_THROW((void)a.ask({"And at the top right?", {}}, few, callbacks), Error);
    EXPECT_THROW((void)a.ask({"What is this? <image>", {}}, few), Error);
    EXPECT_EQ(a.usage().rows, before.rows);
    EXPECT_EQ(a.n_processed(), b.n_processed());
    EXPECT_EQ(a.ask({"What is in the middle?", {}}, few).tokens, b.ask({"What is in the middle?", {}}, few).tokens);
}

TEST(Profile, CompactsLayerByLayer) {
    SessionOptions options;
    options.method = "prefixkv";
    Profile profile;
    profile.forget.assign(static_cast<size_t>(embedded()->info().n_layer), 0.8);
    options.method_options.profile = profile;
    Session session(embedded(), options);
    run(session, 0);
    const ModelInfo & info = embedded()->info();
    const auto one_layer = static_cast<uint64_t>(session.prompt_shape().n_tokens) *
                           static_cast<uint64_t>(info.n_head_kv) * static_cast<uint64_t>(info.head_dim) * 4U;
    constexpr uint64_t kPage = 4096;
    EXPECT_LE(session.peak_kv_bytes(), session.usage().bytes_reserved + one_layer + 2 * kPage);

    Session full(embedded(), {});
    run(full, 0);
    EXPECT_GE(full.peak_kv_bytes(), full.usage().bytes_full_f16 + one_layer);
    EXPECT_GT(full.peak_kv_bytes(), 2 * session.peak_kv_bytes());
}

}  // namespace
}  // namespace kvsieve::test
