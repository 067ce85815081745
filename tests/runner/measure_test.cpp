// SPDX-License-Identifier: MIT
#include "runner/measure.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/random_session.h"
#include "eval/metrics.h"
#include "support/expect_error.h"

namespace kvsieve {
namespace {

Sample token_sample(size_t n_prompt = 60, size_t n_answer = 8) {
    Question question;
    question.prompt_tokens = test::random_tokens(n_prompt, 1);
    question.answer_tokens = test::random_tokens(n_answer, 2);
    return {.id = "a", .line = 3, .images = {}, .turns = {question}, .group = "a"};
}

CellResult measure_cell(const std::shared_ptr<const Model> & model, const Sample & sample, const CellKey & key,
                        const MeasureOptions & options) {
    CellResult result;
    MeasureCallbacks callbacks;
    callbacks.on_cell = [&](const CellResult & cell) { result = cell; };
    measure_sample(model, sample, std::span(&key, 1), options, callbacks);
    return result;
}

TEST(Measure, FullCacheHasThePerplexityOfOnePass) {
    const Sample sample = token_sample();
    const auto result = measure_cell(test::random_model(), sample, {.method = "full", .keep = 1.0},
                                     {.metrics = {"ppl"}, .chat_template = "raw"});
    // the same sum from a session that is fed by hand
    Session session(test::random_model(), {});
    double nll = 0.0;
    auto logits = session.feed(sample.turns[0].prompt_tokens);
    for (const int32_t token : sample.turns[0].answer_tokens) {
        nll += token_nll(logits, token);
        logits = session.feed(std::span<const int32_t>(&token, 1));
    }
    EXPECT_EQ(result.error, "");
    EXPECT_EQ(result.nll, nll);
    EXPECT_EQ(result.n_tokens, 8);
    EXPECT_EQ(result.n_prompt, 60);
    EXPECT_EQ(result.kv_bytes, result.kv_bytes_full);
    EXPECT_EQ(result.layer_rows, (std::vector<int64_t>{120, 120, 120}));
}

TEST(Measure, BudgetsHoldTheSameBytes) {
    const Sample sample = token_sample(200);
    for (const char * type : {"f16", "q8_0", "q4_0"}) {
        for (const char * method : {"prefixkv", "h2o", "streaming_llm"}) {
            const auto result =
                measure_cell(test::random_model(), sample, {.method = method, .budget = 0.25, .kv_type = type},
                             {.metrics = {"ppl"}, .chat_template = "raw"});
            ASSERT_EQ(result.error, "") << method;
            const double share = static_cast<double>(result.kv_bytes) / static_cast<double>(result.kv_bytes_full);
            EXPECT_LE(share, 0.25) << method << ' ' << type;
            EXPECT_GT(share, 0.24) << method << ' ' << type;
        }
    }
}

TEST(Measure, TheOracleWithEverythingKeptIsTheFullCache) {
    const MeasureOptions options{.metrics = {"ppl"}, .chat_template = "raw"};
    const auto full = measure_cell(test::random_model(), token_sample(), {.method = "full", .keep = 1.0}, options);
    const auto oracle = measure_cell(test::random_model(), token_sample(), {.method = kOracle, .keep = 1.0}, options);
    EXPECT_EQ(oracle.error, "");
    EXPECT_EQ(oracle.nll, full.nll);
    EXPECT_EQ(oracle.kv_bytes, full.kv_bytes);
    Sample longer = token_sample(8190);
    test::expect_error(ErrorCode::bad_input, "line 3", [&] {
        static_cast<void>(measure_cell(test::random_model(), longer, {.method = kOracle, .keep = 0.5}, options));
    });
}

TEST(Measure, TheOracleIsABoundForSieve) {
    const std::string models = KVSIEVE_MODELS_DIR;
    const auto model = Model::load({.model = models + "/kvsieve-tiny-model-f16.gguf",
                                    .mmproj = models + "/kvsieve-tiny-mmproj-f16.gguf",
                                    .n_threads = 1,
                                    .probes = models + "/kvsieve-tiny-probes-f16.gguf"});
    const std::vector<CellKey> grid = {{.method = "sieve", .budget = 0.05},
                                       {.method = kOracle, .budget = 0.05},
                                       {.method = kOracle, .params = {{"output", "0"}}, .budget = 0.05}};
    std::vector<double> nll(grid.size(), 0.0);
    MeasureCallbacks callbacks;
    callbacks.on_cell = [&](const CellResult & cell) {
        EXPECT_EQ(cell.error, "");
        nll[static_cast<size_t>(std::ranges::find(grid, cell.key) - grid.begin())] += cell.nll;
    };
    const DataSet data = read_data(std::filesystem::path(KVSIEVE_TEST_DATA) / "heldout" / "heldout.jsonl");
    for (const Sample & sample : data.samples) {
        if (sample.id == "100037-page-q2" || sample.id == "100052-page-q2") {  // answers of several tokens
            measure_sample(model, sample, grid, {.metrics = {"ppl"}}, callbacks);
        }
    }
    EXPECT_GT(nll[1], 0.0);
    EXPECT_LE(nll[1], nll[0]);
    EXPECT_NE(nll[2], nll[1]);
}

TEST(Measure, TextsAreThoseOfASession) {
    const auto model = Model::load({KVSIEVE_MODELS_DIR "/kvsieve-tiny-model-f16.gguf", std::nullopt, 1});
    Sample sample{.id = "t", .line = 1, .images = {}, .turns = {}, .group = "t"};
    sample.turns.push_back(
        {.prompt = "How many objects are there?", .answers = {"two"}, .prompt_tokens = {}, .answer_tokens = {}});
    sample.turns.push_back(
        {.prompt = "What color is it?", .answers = {"red"}, .prompt_tokens = {}, .answer_tokens = {}});
    Session session(model, {});
    const GenerateOptions generate{.n_predict = 12, .stop = {}, .sampling = {}};
    const std::string text = session.ask({"How many objects are there?", {}}, generate).text;
    sample.turns[1].answers = {session.ask({"What color is it?", {}}, generate).text};
    const auto result =
        measure_cell(model, sample, {.method = "full", .keep = 1.0},
                     {.metrics = {"ppl", "rouge_l", "exact_match_next"}, .chat_template = "", .n_predict = 12});
    ASSERT_EQ(result.error, "");
    ASSERT_FALSE(text.empty());
    EXPECT_EQ(result.text, text);
    EXPECT_EQ(result.metrics.at("rouge_l"), 1.0);
    EXPECT_EQ(result.metrics.at("exact_match_next"), 1.0);
    EXPECT_EQ(result.n_next, 1);
    EXPECT_GT(result.n_tokens, 0);
    EXPECT_EQ(result.metrics.count("anls"), 0u);
}

TEST(Measure, WhatAMethodRefusesIsAnErrorOfTheCell) {
    const auto result = measure_cell(test::random_model(), token_sample(), {.method = "aircache", .keep = 0.5},
                                     {.metrics = {"ppl"}, .chat_template = "raw"});
    EXPECT_NE(result.error.find("visual"), std::string::npos) << result.error;
    EXPECT_EQ(result.n_tokens, 0);
}

TEST(Measure, ASampleThatCannotBeMeasuredNamesItsLine) {
    const auto refused = [](const Sample & sample, const std::vector<std::string> & metrics, const std::string & part) {
        test::expect_error(ErrorCode::bad_input, part, [&] {
            static_cast<void>(measure_cell(test::random_model(), sample, {.method = "full", .keep = 1.0},
                                           {.metrics = metrics, .chat_template = "raw"}));
        });
    };
    Sample sample = token_sample();
    refused(sample, {"anls"}, "line 3: a prompt of token numbers");
    sample.turns[0].answer_tokens.clear();
    refused(sample, {"ppl"}, "line 3: the answer has no tokens");
    sample.turns[0].answer_tokens = {100000};
    refused(sample, {"ppl"}, "line 3: token 100000 is not in the model's vocabulary of 270");
    refused(token_sample(9000), {"ppl"}, "line 3: the prompt has 9000 tokens");
    refused(token_sample(8190), {"ppl"}, "line 3: prompt and answer have 8198 tokens, the context takes 8192");
}

TEST(Measure, TheWholeGridEqualsItsCellsMeasuredAlone) {
    const Sample sample = token_sample(200);
    const std::vector<CellKey> grid = {{.method = "full", .keep = 1.0},
                                       {.method = "prefixkv", .keep = 0.2},
                                       {.method = "snapkv", .params = {{"window", "16"}}, .budget = 0.2},
                                       {.method = "snapkv", .budget = 0.2, .kv_type = "q4_0"},
                                       {.method = "aircache", .keep = 0.2}};
    const MeasureOptions options{.metrics = {"ppl"}, .chat_template = "none"};
    std::vector<CellResult> together;
    std::vector<SampleFacts> facts;
    MeasureCallbacks callbacks;
    callbacks.on_cell = [&](const CellResult & cell) { together.push_back(cell); };
    callbacks.on_facts = [&](const SampleFacts & one) { facts.push_back(one); };
    measure_sample(test::random_model(), sample, grid, options, callbacks);
    ASSERT_EQ(together.size(), grid.size());
    for (size_t i = 0; i < grid.size(); ++i) {
        EXPECT_EQ(together[i], measure_cell(test::random_model(), sample, grid[i], options)) << i;
    }
    ASSERT_EQ(facts.size(), 1u);
    EXPECT_EQ(facts[0].gini.size(), 3u);
    EXPECT_GT(facts[0].gini[0], 0.0);
}

}  // namespace
}  // namespace kvsieve
