// SPDX-License-Identifier: MIT
// The batch engine: answers as alone, bytes never above the budget, cancellation anywhere, one sentence for what fails.
#include "kvsieve/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "engine/answers.h"
#include "engine/random_session.h"
#include "support/expect_error.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

/// What a matrix multiplication of several columns rounds differently moves logits of the random model by at most.
constexpr double kBound = 2e-3;

/// A linear congruential generator, so that the same requests come everywhere.
class Dice {
  public:
    explicit Dice(uint32_t seed) : state_(seed) {}
    /// 0 .. n-1
    uint32_t roll(uint32_t n) {
        state_ = state_ * 1664525U + 1013904223U;
        return (state_ >> 8U) % n;
    }

  private:
    uint32_t state_;
};

struct Ended {
    RequestResult result;
    std::optional<Plan> plan;
    int32_t n_processed = 0;
};

/// Text of an Error that a request ended with.
std::string sentence_of(const RequestResult & result) {
    try {
        if (result.error) {
            std::rethrow_exception(result.error);
        }
    } catch (const Error & e) {
        return e.what();
    }
    return "";
}

/// Submits requests and keeps how they ended.
class Collector {
  public:
    explicit Collector(BatchEngine & engine) : engine_(engine) {}
    uint64_t submit(Request request) {
        request.on_done = [this](const RequestResult & result, const Session & session) {
            Ended one{result, {}, session.n_processed()};
            if (session.plan() != nullptr) {
                one.plan = *session.plan();
            }
            EXPECT_TRUE(ended.emplace(result.id, std::move(one)).second) << "ended twice";
        };
        return engine_.submit(std::move(request));
    }
    std::map<uint64_t, Ended> ended;

  private:
    BatchEngine & engine_;
};

Request request_of(size_t n_tokens, int32_t n_predict, uint32_t seed = 1) {
    Request request;
    request.tokens = random_tokens(n_tokens, seed);
    request.generate.n_predict = n_predict;
    return request;
}

Request random_request(uint32_t seed) {
    Dice dice(seed);
    Request request = request_of(8 + dice.roll(240), 1 + static_cast<int32_t>(dice.roll(32)), seed);
    const MethodInfo * info = nullptr;
    while (info == nullptr || info->traits.visual) {
        info = &methods()[dice.roll(static_cast<uint32_t>(methods().size()))];
    }
    request.session.method = info->name;
    request.session.method_options.keep = info->keep_of.empty() ? 1.0 : 0.1 + 0.1 * static_cast<double>(dice.roll(8));
    request.session.kv_type = static_cast<KvType>(dice.roll(3));
    if (info->name == "sieve" && request.session.kv_type == KvType::f16) {
        request.session.method_options.params["precision"] = "auto";
    }
    if (dice.roll(4) == 0) {
        request.session.decode_policy = dice.roll(2) == 0 ? "tova" : "h2o";
        request.session.decode_cap = 16 + static_cast<int32_t>(dice.roll(64));
    }
    return request;
}

/// Feeds the answer to a session of its own, token by token. False where it differs by rounding; a first difference
/// where the two likeliest tokens are further apart than rounding can move them fails the test.
bool agrees_with_solo(const Request & request, const Ended & one) {
    SessionOptions options = request.session;
    Session solo(random_model(), options);
    std::vector<float> logits;
    const auto take = [&](std::span<const float> x) { logits.assign(x.begin(), x.end()); };
    take(solo.feed(request.tokens));
    EXPECT_TRUE(one.plan.has_value());
    EXPECT_EQ(one.plan->layers, solo.plan()->layers) << "the plan depends on the neighbours";
    for (const int32_t token : one.result.answer.tokens) {
        if (token != argmax(logits)) {
            EXPECT_LE(top_two_gap(logits), 2 * kBound) << "more than rounding";
            return false;
        }
        take(solo.feed(std::span<const int32_t>(&token, 1)));
    }
    return true;
}

TEST(BatchEngine, AThousandRequestsInAFixedBudgetAnswerAsAlone) {
    constexpr uint32_t kRequests = 1000;
    const BatchOptions options{.kv_bytes = 1'500'000, .max_sequences = 8, .prefill_ms = 0.0};
    BatchEngine engine(random_model(), options);
    Collector collector(engine);
    Dice dice(7);
    std::vector<Request> requests;
    std::vector<uint64_t> ids;
    int32_t most_together = 0;
    bool waited = false;
    do {
        for (uint32_t i = dice.roll(3); i > 0 && requests.size() < kRequests; --i) {
            requests.push_back(random_request(static_cast<uint32_t>(requests.size()) + 1));
            ids.push_back(collector.submit(requests.back()));
            if (dice.roll(10) == 0) {
                engine.cancel(ids[dice.roll(static_cast<uint32_t>(ids.size()))]);  // may have ended already
                engine.cancel(ids.back() - std::min<uint64_t>(dice.roll(8), ids.back() - 1));
            }
        }
        static_cast<void>(engine.step());
        const BatchUsage usage = engine.usage();
        ASSERT_LE(usage.kv_bytes, usage.kv_bytes_admitted);
        ASSERT_LE(usage.kv_bytes_admitted, options.kv_bytes);
        most_together = std::max(most_together, usage.n_decoding);
        waited = waited || usage.n_waiting > 2;
    } while (collector.ended.size() < kRequests);
    const BatchUsage usage = engine.usage();
    EXPECT_FALSE(engine.step());
    EXPECT_EQ(usage.kv_bytes, 0U);
    EXPECT_EQ(usage.kv_bytes_admitted, 0U);
    EXPECT_LE(usage.kv_bytes_peak, options.kv_bytes);
    EXPECT_GT(usage.kv_bytes_peak, options.kv_bytes / 2) << "the budget was never used";
    EXPECT_GE(most_together, 4);
    EXPECT_TRUE(waited);

    uint32_t n_cancelled = 0, n_answered = 0, n_different = 0;
    for (uint32_t i = 0; i < kRequests; ++i) {
        const Ended & one = collector.ended.at(ids[i]);
        SCOPED_TRACE("request " + std::to_string(i) + " " + requests[i].session.method);
        if (one.result.end == RequestEnd::cancelled) {
            ++n_cancelled;
        } else if (one.result.end == RequestEnd::failed) {
            const auto method = make_method(requests[i].session.method, requests[i].session.method_options);
            Session solo(random_model(), requests[i].session);  // refuses it with the same sentence
            expect_error(ErrorCode::invalid_argument, sentence_of(one.result),
                         [&] { static_cast<void>(solo.feed(requests[i].tokens)); });
        } else {
            ++n_answered;
            n_different += agrees_with_solo(requests[i], one) ? 0 : 1;
        }
    }
    EXPECT_GT(n_cancelled, 50U);
    EXPECT_GT(n_answered, 700U);
    EXPECT_LE(n_different, n_answered / 100);
}

TEST(BatchEngine, WhoDoesNotFitWaitsItsTurn) {
    // each takes about 200 rows x 3 layers x 2 heads x 256 bytes
    BatchEngine engine(random_model(), {.kv_bytes = 1'000'000});
    Collector collector(engine);
    std::vector<uint64_t> ids;
    for (uint32_t i = 0; i < 5; ++i) {
        ids.push_back(collector.submit(request_of(200, 40, i + 1)));
    }
    std::vector<uint64_t> order;
    int32_t most = 0;
    while (engine.step()) {
        const BatchUsage usage = engine.usage();
        EXPECT_LE(usage.kv_bytes_admitted, 1'000'000U);
        most = std::max(most, usage.n_decoding + usage.n_prefilling);
    }
    EXPECT_EQ(most, 2);
    ASSERT_EQ(collector.ended.size(), 5U);
    for (size_t i = 0; i < ids.size(); ++i) {
        const RequestResult & result = collector.ended.at(ids[i]).result;
        EXPECT_EQ(result.end, RequestEnd::answered);
        EXPECT_EQ(result.answer.n_prompt, 200);
        EXPECT_GT(result.ttft_ms, result.waited_ms);
        EXPECT_GE(result.waited_ms, i == 0 ? 0.0 : collector.ended.at(ids[i - 1]).result.waited_ms);
    }
}

TEST(BatchEngine, ALongPromptDoesNotHoldUpTheOthers) {
    uint32_t seed = 0;  // of a prompt that is answered at length
    for (size_t n_answer = 0; n_answer < 40;) {
        Session solo(random_model(), {});
        static_cast<void>(solo.feed(random_tokens(20, ++seed)));
        n_answer = solo.generate(request_of(1, 40).generate).tokens.size();
        ASSERT_LT(seed, 100U);
    }
    BatchEngine engine(random_model(), {.prefill_ms = 0.0});
    Collector collector(engine);
    const uint64_t running = collector.submit(request_of(20, 40, seed));
    while (engine.usage().n_decoding == 0) {
        ASSERT_TRUE(engine.step());
    }
    const uint64_t late = collector.submit(request_of(2048, 2, 3));
    size_t n_steps = 0, n_prefilling = 0;
    while (!collector.ended.contains(late)) {
        ASSERT_TRUE(engine.step());
        ++n_steps;
        n_prefilling += engine.usage().n_prefilling == 1 ? 1 : 0;
    }
    ASSERT_TRUE(engine.cancel(running)) << "it ended too early to show anything";
    static_cast<void>(engine.step());
    // layers x chunks of 512 tokens, each in two parts, of which short ones may share a step
    EXPECT_GE(n_prefilling, 3U * 4);
    EXPECT_EQ(collector.ended.at(running).result.answer.tokens.size(), n_steps) << "the running one stood still";
    EXPECT_EQ(collector.ended.at(late).result.end, RequestEnd::answered);
}

TEST(BatchEngine, CancelsWaitingHalfWayAndWhileDecoding) {
    for (const int32_t n_steps : {0, 5, 14, 25, 50}) {
        BatchEngine engine(random_model(), {.max_sequences = 2, .prefill_ms = 0.0});
        Collector collector(engine);
        const uint64_t other = collector.submit(request_of(50, 60, 5));
        const uint64_t id = collector.submit(request_of(2048, 100));
        for (int32_t i = 0; i < n_steps; ++i) {
            ASSERT_TRUE(engine.step());
        }
        EXPECT_TRUE(engine.cancel(id));
        ASSERT_TRUE(engine.step());
        EXPECT_FALSE(engine.cancel(id));
        const RequestResult & result = collector.ended.at(id).result;
        EXPECT_EQ(result.end, RequestEnd::cancelled);
        EXPECT_EQ(result.error, nullptr);
        EXPECT_EQ(result.ttft_ms > 0.0, !result.answer.tokens.empty());
        while (engine.step()) {
        }
        EXPECT_TRUE(agrees_with_solo(request_of(50, 60, 5), collector.ended.at(other))) << n_steps;
        EXPECT_EQ(engine.usage().kv_bytes, 0U);
    }
}

TEST(BatchEngine, WhatFailsEndsWithASentenceAndLeavesTheOthersAlone) {
    BatchEngine engine(random_model(), {.kv_bytes = 1'000'000});
    Collector collector(engine);
    const uint64_t good = collector.submit(request_of(60, 20));
    const uint64_t too_large = collector.submit(request_of(4000, 20));
    Request beyond = request_of(100, 20);
    beyond.session.n_ctx = 64;
    const uint64_t too_long = collector.submit(std::move(beyond));
    Request blind = request_of(100, 20);
    blind.session.method = "aircache";
    blind.session.method_options.keep = 0.5;
    const uint64_t no_image = collector.submit(std::move(blind));
    Request angry = request_of(60, 20, 4);
    angry.on_text = [](std::string_view) { throw std::runtime_error("the reader went away"); };
    const uint64_t thrown = collector.submit(std::move(angry));
    while (engine.step()) {
    }
    EXPECT_EQ(collector.ended.at(good).result.end, RequestEnd::answered);
    EXPECT_EQ(collector.ended.at(good).result.answer.tokens.size(), 20U);
    for (const auto & [id, part] :
         {std::pair<uint64_t, const char *>{too_large, "all caches together may take 1000000"},
          {too_long, "the context takes 64"},
          {no_image, "visual"}}) {
        EXPECT_EQ(collector.ended.at(id).result.end, RequestEnd::failed);
        EXPECT_NE(sentence_of(collector.ended.at(id).result).find(part), std::string::npos)
            << sentence_of(collector.ended.at(id).result);
    }
    EXPECT_EQ(collector.ended.at(thrown).result.end, RequestEnd::failed);
    EXPECT_EQ(collector.ended.at(thrown).result.answer.tokens.size(), 1U);
    EXPECT_THROW(std::rethrow_exception(collector.ended.at(thrown).result.error), std::runtime_error);
}

TEST(BatchEngine, WhatOnDoneThrowsLeavesTheStepAndHarmsNobody) {
    BatchEngine engine(random_model(), {});
    Collector collector(engine);
    Request request = request_of(30, 3);
    request.on_done = [](const RequestResult &, const Session &) { throw std::runtime_error("done"); };
    engine.submit(std::move(request));
    const uint64_t other = collector.submit(request_of(30, 12, 2));
    int32_t n_thrown = 0;
    for (bool more = true; more;) {
        try {
            more = engine.step();
        } catch (const std::runtime_error &) {
            ++n_thrown;
        }
    }
    EXPECT_EQ(n_thrown, 1);
    EXPECT_EQ(collector.ended.at(other).result.answer.tokens.size(), 12U);
    EXPECT_TRUE(agrees_with_solo(request_of(30, 12, 2), collector.ended.at(other)));
}

TEST(BatchEngine, RefusesBeforeItQueues) {
    BatchEngine engine(random_model(), {});
    const auto refused = [&](Request request, const std::string & part) {
        expect_error(ErrorCode::invalid_argument, part, [&] { static_cast<void>(engine.submit(std::move(request))); });
        EXPECT_EQ(engine.usage().n_waiting, 0);
        EXPECT_FALSE(engine.step());
    };
    refused({}, "the prompt is empty");
    Request request = request_of(5, 5);
    request.tokens[2] = 4711;
    refused(request, "the token 4711");
    request = request_of(5, -1);
    refused(request, "must not be negative");
    request = request_of(5, 5);
    request.session.method = "no_such_method";
    refused(request, "no_such_method");
    request = request_of(5, 5);
    request.session.attention_kernel = false;
    refused(request, "ggml's operation");
    request = request_of(5, 5);
    request.generate.stop = {""};
    refused(request, "stop");
    expect_error(ErrorCode::invalid_argument, "at least 1 sequence",
                 [] { BatchEngine(random_model(), {.max_sequences = 0}); });
    expect_error(ErrorCode::invalid_argument, "must not be negative",
                 [] { BatchEngine(random_model(), {.prefill_ms = -1.0}); });
    EXPECT_FALSE(engine.cancel(1));
}

TEST(BatchEngine, SubmitsAndCancelsFromManyThreads) {
    BatchEngine engine(random_model(), {.kv_bytes = 2'000'000, .max_sequences = 4});
    std::atomic<int32_t> n_ended = 0;
    std::jthread runner([&](const std::stop_token & stop) { engine.run(stop); });
    {
        std::vector<std::jthread> clients;
        for (uint32_t t = 0; t < 4; ++t) {
            clients.emplace_back([&engine, &n_ended, t] {
                for (uint32_t i = 0; i < 10; ++i) {
                    Request request = random_request(1000 * t + i);
                    request.on_done = [&](const RequestResult &, const Session &) { ++n_ended; };
                    const uint64_t id = engine.submit(std::move(request));
                    if (i % 3 == 0) {
                        engine.cancel(id);
                    }
                    static_cast<void>(engine.usage());
                }
            });
        }
    }
    while (n_ended < 40) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    runner.request_stop();
}

TEST(BatchEngine, IsDestroyedWithRequestsInEveryState) {
    int32_t n_ended = 0;
    {
        BatchEngine engine(random_model(), {.max_sequences = 2, .prefill_ms = 0.0});
        for (uint32_t i = 0; i < 4; ++i) {
            Request request = request_of(600, 100, i);
            request.on_done = [&](const RequestResult &, const Session &) { ++n_ended; };
            engine.submit(std::move(request));
        }
        for (int32_t i = 0; i < 20; ++i) {  // the first prompt takes 15
            ASSERT_TRUE(engine.step());
        }
        EXPECT_EQ(engine.usage().n_decoding, 1);
        EXPECT_EQ(engine.usage().n_waiting, 2);
    }
    EXPECT_EQ(n_ended, 0);
}

TEST(BatchEngine, ImagesAreEncodedBesideAndAnsweredAsAlone) {
    const auto model = Model::load(embedded_pair());
    std::vector<Question> questions = held_out_questions();
    questions.resize(3);
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.5;
    BatchEngine engine(model, {});
    Collector collector(engine);
    std::vector<uint64_t> ids;
    for (const Question & question : questions) {
        Request request;
        request.turn = {question.prompt, {question.image}};
        request.session = options;
        request.generate.n_predict = 8;
        ids.push_back(collector.submit(std::move(request)));
    }
    Request missing;
    missing.turn = {"What is to be seen?", {"no_such_image.png"}};
    const uint64_t lost = collector.submit(std::move(missing));
    while (engine.step()) {
    }
    for (size_t i = 0; i < questions.size(); ++i) {
        const RequestResult & result = collector.ended.at(ids[i]).result;
        ASSERT_EQ(result.end, RequestEnd::answered) << sentence_of(result);
        EXPECT_GT(result.answer.n_visual, 0);
        Session solo(model, options);
        GenerateOptions eight;
        eight.n_predict = 8;
        const Answer answer = solo.ask({questions[i].prompt, {questions[i].image}}, eight);
        EXPECT_EQ(result.answer.n_prompt, answer.n_prompt);
        EXPECT_EQ(collector.ended.at(ids[i]).plan->layers, solo.plan()->layers);
        EXPECT_EQ(result.answer.tokens.front(), answer.tokens.front());
    }
    EXPECT_EQ(collector.ended.at(lost).result.end, RequestEnd::failed);
    EXPECT_NE(sentence_of(collector.ended.at(lost).result).find("no_such_image.png"), std::string::npos);
}

}  // namespace
}  // namespace kvsieve::test
