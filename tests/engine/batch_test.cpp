// SPDX-License-Identifier: MIT
// Sessions that decode together: caches and evictions as alone, logits within what a matrix multiplication of several
// columns rounds differently.
#include <gtest/gtest.h>

#include <vector>

#include "engine/random_session.h"
#include "support/expect_error.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

SessionOptions options_of(size_t i) {
    const std::vector<std::string> methods = {"full", "prefixkv", "h2o", "adakv", "elastic_cache"};
    SessionOptions options;
    options.method = methods[i];
    options.method_options.keep = i == 0 ? 1.0 : 0.4;
    options.kv_type = i % 3 == 0 ? KvType::f16 : i % 3 == 1 ? KvType::q8_0 : KvType::q4_0;
    if (i == 2) {
        options.decode_policy = "tova";
        options.decode_cap = 50;
    }
    return options;
}

TEST(FeedBatch, EverySessionIsAsIfItWereAlone) {
    std::vector<Session> together, alone;
    for (size_t i = 0; i < 5; ++i) {
        for (auto * sessions : {&together, &alone}) {
            sessions->emplace_back(random_model(), options_of(i));
            static_cast<void>(sessions->back().feed(random_tokens(100 + 70 * i, static_cast<uint32_t>(i))));
        }
    }
    for (int32_t step = 0; step < 30; ++step) {
        std::vector<Session *> running;
        std::vector<int32_t> tokens;
        for (size_t i = 0; i < together.size(); ++i) {
            if (i != 3 || step < 10) {  // one leaves
                running.push_back(&together[i]);
                tokens.push_back(10 + (step * 13 + static_cast<int32_t>(i) * 5) % 200);
                static_cast<void>(alone[i].feed(std::span<const int32_t>(&tokens.back(), 1)));
            }
        }
        feed_batch(running, tokens);
        for (size_t i = 0; i < together.size(); ++i) {
            EXPECT_LT(max_difference(together[i].logits(), alone[i].logits()), 2e-3) << "step " << step << " " << i;
        }
    }
    for (size_t i = 0; i < together.size(); ++i) {
        EXPECT_EQ(together[i].n_processed(), alone[i].n_processed());
        for (int32_t il = 0; il < 3; ++il) {
            for (int32_t g = 0; g < 2; ++g) {
                EXPECT_EQ(together[i].positions(il, g), alone[i].positions(il, g)) << i << " " << il << " " << g;
            }
        }
    }
}

TEST(FeedBatch, AForkIsTheSameSession) {
    for (size_t i = 0; i < 5; ++i) {
        Session own(random_model(), options_of(i));
        static_cast<void>(own.feed(random_tokens(200)));
        Session copy = own.fork();
        const std::vector<int32_t> tokens = random_tokens(20, 9);
        EXPECT_EQ(feed_one_by_one(copy, tokens), feed_one_by_one(own, tokens)) << i;
        EXPECT_EQ(copy.usage().bytes_held, own.usage().bytes_held);
        expect_error(ErrorCode::invalid_argument, "first prompt only", [&] { static_cast<void>(own.fork()); });
    }
}

TEST(FeedBatch, RefusesWithASentenceAndChangesNothing) {
    SessionOptions small;
    small.n_ctx = 60;
    Session a(random_model(), {}), b(random_model(), {}), fresh(random_model(), {}), full(random_model(), small);
    for (Session * session : {&a, &b}) {
        static_cast<void>(session->feed(random_tokens(50)));
    }
    static_cast<void>(full.feed(random_tokens(60)));
    const auto refused = [&](std::vector<Session *> sessions, std::vector<int32_t> tokens, ErrorCode code,
                             const std::string & part) {
        expect_error(code, part, [&] { feed_batch(sessions, tokens); });
        EXPECT_EQ(a.n_processed(), 50);
        EXPECT_EQ(a.usage().rows, b.usage().rows);
    };
    refused({}, {}, ErrorCode::invalid_argument, "0 sessions");
    refused({&a, &b}, {5}, ErrorCode::invalid_argument, "1 tokens");
    refused({&a, &a}, {5, 6}, ErrorCode::invalid_argument, "comes twice");
    refused({&a, &fresh}, {5, 6}, ErrorCode::invalid_argument, "no prompt yet");
    refused({&a, &b}, {5, 99999}, ErrorCode::invalid_argument, "99999");
    refused({&a, &full}, {5, 6}, ErrorCode::too_large, "context");
}

}  // namespace
}  // namespace kvsieve::test
