// SPDX-License-Identifier: MIT
// Hard caps: the prompt's rows, the cache while an answer grows, and a cache of fixed size while decoding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/random_session.h"
#include "kvsieve/decode_policy.h"
#include "kvsieve/error.h"

namespace kvsieve::test {
namespace {

constexpr int64_t kExtents = 3 * 2;  // layers x KV heads
constexpr size_t kPrompt = 300;

uint64_t row_bytes(KvType type) {
    return 2 * (type == KvType::f16 ? 128U : type == KvType::q8_0 ? 68U : 36U);
}

std::vector<std::string> capped_methods() {
    std::vector<std::string> names;
    for (const MethodInfo & info : methods()) {
        if (info.keep_of == "all rows" && !info.traits.visual) {  // the prompt here is text
            names.emplace_back(info.name);
        }
    }
    return names;
}

class RowCap : public testing::TestWithParam<std::string> {};

TEST_P(RowCap, IsMetAndAlmostUsed) {
    const std::vector<int32_t> tokens = random_tokens(kPrompt);
    const auto run = [&](const SessionOptions & options) {
        Session session(random_model(), options);
        session.feed(tokens);
        uint64_t rows = 0;
        for (const LayerPlan & layer : session.plan()->layers) {
            rows += layer.of_head(0).size() + layer.of_head(1).size();
        }
        EXPECT_EQ(session.usage().rows, rows);
        EXPECT_LE(session.method_options().keep, 1.0);
        EXPECT_GT(session.method_options().keep, 0.0);
        return rows;
    };
    const auto expect_used = [&](uint64_t rows, double cap) {
        EXPECT_LE(static_cast<double>(rows), cap);
        EXPECT_GE(static_cast<double>(rows), 0.85 * cap) << "a larger keep would fit";
    };
    SessionOptions options;
    options.method = GetParam();
    options.kv_tokens = 120;
    expect_used(run(options), 120.0 * kExtents);
    options.kv_tokens = 1000;  // more than there are
    EXPECT_EQ(run(options), kPrompt * kExtents);
    options.kv_tokens = 0;
    for (const KvType type : {KvType::f16, KvType::q8_0}) {
        options.kv_type = type;
        options.kv_share = 0.4;
        expect_used(run(options),
                    std::min(1.0, 0.4 * 256.0 / static_cast<double>(row_bytes(type))) * kPrompt * kExtents);
        options.kv_share = 0.0;
        options.kv_bytes = 100 * kExtents * row_bytes(type) + 5;
        expect_used(run(options), 100.0 * kExtents);
        options.kv_bytes = 0;
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, RowCap, testing::ValuesIn(capped_methods()),
                         [](const auto & variant) { return variant.param; });

TEST(RowCap, RefusesWithASentence) {
    const std::vector<int32_t> tokens = random_tokens(kPrompt);
    SessionOptions options;
    options.kv_tokens = 120;
    Session full(random_model(), options);
    EXPECT_THROW((void)full.feed(tokens), Error) << "full keeps every row";
    EXPECT_EQ(full.n_processed(), 0);
    EXPECT_EQ(full.usage().rows, 0U);

    options.method = "prefixkv";
    options.kv_tokens = 0;
    options.kv_bytes = 100;
    EXPECT_THROW((void)Session(random_model(), options), Error);
    options.kv_bytes = 0;
    options.kv_share = 1.5;
    EXPECT_THROW((void)Session(random_model(), options), Error);
    options.kv_share = 0.0;
    options.kv_tokens = -1;
    EXPECT_THROW((void)Session(random_model(), options), Error);
    options.kv_tokens = 0;
    options.kv_bytes = 50 * kExtents * row_bytes(KvType::f16);
    Session session(random_model(), options);
    GenerateOptions generate;
    generate.n_predict = 60;
    EXPECT_THROW((void)session.ask({"Hello", {}}, generate), Error) << "60 reserved rows are more than 50";
    EXPECT_EQ(session.n_processed(), 0);
}

TEST(RowCap, AnAnswerEndsAtTheByteCap) {
    SessionOptions options;
    options.chat_template = "raw";
    options.kv_bytes = 200 * kExtents * row_bytes(KvType::f16);
    Session session(random_model(), options);
    GenerateOptions generate;
    generate.n_predict = 20;
    const Answer first = session.ask({std::string(150, 'q'), {}}, generate);
    EXPECT_EQ(first.finish, FinishReason::length) << "20 rows were reserved";
    EXPECT_EQ(session.usage().rows, static_cast<uint64_t>((first.n_prompt + 19) * kExtents));
    generate.n_predict = 100;
    const Answer second = session.ask({"abc", {}}, generate);
    EXPECT_EQ(second.finish, FinishReason::kv_budget);
    EXPECT_EQ(finish_reason_name(second.finish), "kv_budget");
    EXPECT_EQ(session.usage().rows, 200U * kExtents) << "no row more, none less";
    EXPECT_THROW((void)session.ask({"abc", {}}, generate), Error) << "a prompt beyond the cap";
    EXPECT_EQ(session.usage().rows, 200U * kExtents);

    options.method = "snapkv";
    Session compressed(random_model(), options);
    generate.n_predict = 50;
    (void)compressed.ask({std::string(300, 'q'), {}}, generate);
    uint64_t rows = 0;
    for (const LayerPlan & layer : compressed.plan()->layers) {
        rows += layer.of_head(0).size() + layer.of_head(1).size();
    }
    EXPECT_EQ(rows, 150U * kExtents) << "what is reserved is not the prompt's";
}

class Policy : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(Policy, NeverExceedsItsCapOver2000Tokens) {
    constexpr int32_t kCap = 96;
    const auto & [policy, method] = GetParam();
    const std::vector<int32_t> tokens = random_tokens(kPrompt + 2000);
    const std::span<const int32_t> all(tokens);
    SessionOptions options;
    options.method = method;
    options.method_options.keep = method == "full" ? 1.0 : 0.2;
    options.decode_policy = policy;
    options.decode_cap = kCap;
    Session session(random_model(), options);
    session.feed(all.first(kPrompt));
    const bool above = session.usage().rows > kCap * kExtents;
    for (size_t i = kPrompt; i < tokens.size(); ++i) {
        const auto logits = session.feed(all.subspan(i, 1));
        ASSERT_TRUE(std::isfinite(logits[0]));
        const KvUsage usage = session.usage();
        for (const auto & layer : usage.rows_of) {
            for (const int32_t rows : layer) {
                ASSERT_LE(rows, kCap) << i;
            }
        }
        ASSERT_LE(usage.bytes_reserved, (kCap + 32U) * kExtents * row_bytes(KvType::f16) + 3 * 4096U);
    }
    EXPECT_EQ(above, method == "full");
    EXPECT_EQ(session.usage().rows, static_cast<uint64_t>(kCap * kExtents)) << "the cache is full in the end";
    session.feed(all.first(700));  // a follow-up prompt in two chunks
    EXPECT_EQ(session.usage().rows, static_cast<uint64_t>(kCap * kExtents));
    if (policy != "tova") {  // which may drop the newest row too
        const std::vector<int32_t> held = session.positions(0, 0);
        EXPECT_NE(std::find(held.begin(), held.end(), static_cast<int32_t>(tokens.size()) + 699), held.end());
    }
}

INSTANTIATE_TEST_SUITE_P(Policies, Policy,
                         testing::Combine(testing::Values("tova", "h2o", "window"),
                                          testing::Values("full", "snapkv", "adakv")),
                         [](const auto & variant) {
                             return std::get<0>(variant.param) + "_" + std::get<1>(variant.param);
                         });

TEST(Policy, WindowKeepsTheSinksAndTheNewestRows) {
    const std::vector<int32_t> tokens = random_tokens(400);
    SessionOptions options;
    options.decode_policy = "window";
    options.decode_cap = 50;
    Session session(random_model(), options);
    session.feed(std::span<const int32_t>(tokens).first(100));
    feed_one_by_one(session, std::span<const int32_t>(tokens).last(300));
    std::vector<int32_t> expected{0, 1, 2, 3};
    for (int32_t p = 400 - 46; p < 400; ++p) {
        expected.push_back(p);
    }
    for (int32_t il = 0; il < 3; ++il) {
        std::vector<int32_t> held = session.positions(il, 1);
        std::sort(held.begin(), held.end());
        EXPECT_EQ(held, expected);
    }
}

TEST(Policy, NoneStopsTheMethodsOwnEviction) {
    const std::vector<int32_t> tokens = random_tokens(400);
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.3;
    Session own(random_model(), options);
    options.decode_policy = "none";
    Session none(random_model(), options);
    uint64_t rows = 0;
    for (Session * session : {&own, &none}) {
        session->feed(std::span<const int32_t>(tokens).first(300));
        rows = session->usage().rows;
        feed_one_by_one(*session, std::span<const int32_t>(tokens).last(100));
    }
    EXPECT_EQ(none.usage().rows, rows + 100U * kExtents);
    EXPECT_LT(own.usage().rows, none.usage().rows);
}

TEST(Policy, WrongOnesAreRefused) {
    SessionOptions options;
    options.decode_policy = "lru";
    EXPECT_THROW((void)Session(random_model(), options), Error);
    options.decode_policy = "tova";
    EXPECT_THROW((void)Session(random_model(), options), Error) << "without a cap";
    options.decode_policy = "none";
    options.decode_cap = 5;
    EXPECT_THROW((void)Session(random_model(), options), Error) << "with a cap";
}

}  // namespace
}  // namespace kvsieve::test
