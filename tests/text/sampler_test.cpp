// SPDX-License-Identifier: MIT
#include "text/sampler.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "kvsieve/log.h"
#include "support/expect_error.h"

namespace kvsieve {
namespace {

using test::expect_error;
using test::Outcome;

const TextModel & model() {
    static const TextModel text{GgufFile(std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf")};
    return text;
}

std::vector<float> random_logits(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> logits(static_cast<size_t>(model().n_vocab()));
    for (float & logit : logits) {
        logit = normal(random);
    }
    return logits;
}

SamplerOptions with_temp(float temp, uint32_t seed = 1) {
    SamplerOptions options;
    options.temp = temp;
    options.seed = seed;
    return options;
}

std::vector<int32_t> draw(const SamplerOptions & options, int n) {
    Sampler sampler(model(), options);
    std::vector<int32_t> out;
    for (int i = 0; i < n; ++i) {
        out.push_back(sampler.sample(random_logits(static_cast<uint64_t>(i))));
        sampler.accept(out.back());
    }
    return out;
}

TEST(Sampler, GreedyTakesTheHighest) {
    Sampler sampler(model(), SamplerOptions());
    for (uint64_t seed = 0; seed < 20; ++seed) {
        const std::vector<float> logits = random_logits(seed);
        const std::vector<float> before = logits;
        EXPECT_EQ(sampler.sample(logits), std::max_element(logits.begin(), logits.end()) - logits.begin());
        EXPECT_EQ(logits, before);
    }
}

TEST(Sampler, SameSeedSameTokens) {
    EXPECT_EQ(draw(with_temp(1.5F, 7), 50), draw(with_temp(1.5F, 7), 50));
    EXPECT_NE(draw(with_temp(1.5F, 7), 50), draw(with_temp(1.5F, 8), 50));
    Sampler sampler(model(), with_temp(1.5F, 7));
    const int32_t first = sampler.sample(random_logits(0));
    (void)sampler.sample(random_logits(0));
    sampler.reset();
    EXPECT_EQ(sampler.sample(random_logits(0)), first);
}

// The same samplers put together by hand, in llama.cpp's order.
TEST(Sampler, EqualsLibllamasChain) {
    SamplerOptions options = with_temp(0.8F, 42);
    options.top_k = 20;
    options.top_p = 0.9F;
    options.min_p = 0.02F;
    llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, llama_sampler_init_top_k(20));
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.9F, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_min_p(0.02F, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(0.8F));
    llama_sampler_chain_add(chain, llama_sampler_init_dist(42));
    std::vector<int32_t> expected;
    for (int i = 0; i < 100; ++i) {
        const std::vector<float> logits = random_logits(static_cast<uint64_t>(i));
        std::vector<llama_token_data> data;
        for (size_t t = 0; t < logits.size(); ++t) {
            data.push_back({static_cast<llama_token>(t), logits[t], 0.0F});
        }
        llama_token_data_array array{data.data(), data.size(), -1, false};
        llama_sampler_apply(chain, &array);
        expected.push_back(array.data[array.selected].id);
    }
    llama_sampler_free(chain);
    EXPECT_EQ(draw(options, 100), expected);
}

TEST(Sampler, TopKLimitsTheChoice) {
    SamplerOptions options = with_temp(5.0F);
    options.top_k = 2;
    options.top_p = 1.0F;
    options.min_p = 0.0F;
    Sampler sampler(model(), options);
    const std::vector<float> logits = random_logits(3);
    std::map<int32_t, int> seen;
    for (int i = 0; i < 200; ++i) {
        ++seen[sampler.sample(logits)];
    }
    EXPECT_EQ(seen.size(), 2U);
}

TEST(Sampler, RefusesWrongOptions) {
    const auto refused = [](const std::string & part, const std::function<void(SamplerOptions &)> & change) {
        expect_error(ErrorCode::invalid_argument, part, [&] {
            SamplerOptions options;
            change(options);
            Sampler sampler(model(), options);
        });
    };
    refused("temp is -", [](SamplerOptions & o) { o.temp = -1.0F; });
    refused("temp is nan", [](SamplerOptions & o) { o.temp = NAN; });
    refused("top_k is -1", [](SamplerOptions & o) { o.top_k = -1; });
    refused("top_p is 0", [](SamplerOptions & o) { o.top_p = 0.0F; });
    refused("min_p is 1.5", [](SamplerOptions & o) { o.min_p = 1.5F; });
}

TEST(Sampler, RefusesWrongLogits) {
    Sampler sampler(model(), SamplerOptions());
    expect_error(ErrorCode::invalid_argument, "3 logits came, expected",
                 [&] { (void)sampler.sample(std::vector<float>(3)); });
    std::vector<float> logits = random_logits(0);
    logits[5] = NAN;
    expect_error(ErrorCode::runtime, "the logit of token 5 is not a number", [&] { (void)sampler.sample(logits); });
    logits.assign(logits.size(), -std::numeric_limits<float>::infinity());
    expect_error(ErrorCode::runtime, "every logit is minus infinity", [&] { (void)sampler.sample(logits); });
}

// Draws to the end of the grammar.
std::string generate(const std::string & grammar, float temp, uint64_t seed) {
    SamplerOptions options = with_temp(temp, static_cast<uint32_t>(seed));
    options.grammar = grammar;
    Sampler sampler(model(), options);
    std::string text;
    for (uint64_t i = 0; i < 200; ++i) {
        const int32_t token = sampler.sample(random_logits(seed * 1000 + i));
        sampler.accept(token);
        if (model().is_eog(token)) {
            return text;
        }
        text += model().piece(token);
    }
    return text;
}

TEST(Grammar, RestrictsTheOutput) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
        for (const float temp : {0.0F, 1.0F}) {
            const std::string word = generate("root ::= \"yes\" | \"no\"", temp, seed);
            EXPECT_TRUE(word == "yes" || word == "no") << word;
            const std::string number = generate("root ::= [0-9] [0-9] [0-9] \"\\n\"", temp, seed);
            ASSERT_EQ(number.size(), 4U);
            EXPECT_TRUE(std::all_of(number.begin(), number.end() - 1, [](char c) { return c >= '0' && c <= '9'; }));
        }
    }
}

TEST(Grammar, ResetStartsAnew) {
    SamplerOptions options;
    options.grammar = "root ::= \"yes\"";
    Sampler sampler(model(), options);
    const int32_t first = sampler.sample(random_logits(1));
    sampler.accept(first);
    sampler.reset();
    EXPECT_EQ(sampler.sample(random_logits(1)), first);
}

TEST(Grammar, RefusesWhatCannotBeParsed) {
    for (const char * grammar : {"root ::= ", "root ::= \"a", "root := \"a\"", "word ::= \"a\"", "root ::= missing",
                                 "root ::= root \"a\"", "root ::= (\"a\"", "root ::= [a", "root ::= \"a\"{3",
                                 "root ::= a\na ::= b\nb ::= a", "::=", "root ::= \"\\q\"", "root ::= *", "\xFF\xFE"}) {
        SamplerOptions options;
        options.grammar = grammar;
        if (std::string(grammar) == "root ::= ") {
            continue;  // the empty text: allowed
        }
        expect_error(ErrorCode::invalid_argument, "the grammar cannot be parsed",
                     [&] { Sampler sampler(model(), options); });
    }
    SamplerOptions options;
    options.grammar = "root ::= " + std::string(300, '(') + "\"a\"" + std::string(300, ')');
    expect_error(ErrorCode::invalid_argument, "nests brackets", [&] { Sampler sampler(model(), options); });
    options.grammar = "root ::= \"" + std::string(200000, 'a') + "\"";
    expect_error(ErrorCode::too_large, "the grammar has", [&] { Sampler sampler(model(), options); });
    options.grammar = std::string("root ::= \"a\"\0", 13);
    expect_error(ErrorCode::invalid_argument, "zero byte", [&] { Sampler sampler(model(), options); });
}

TEST(Grammar, DeadEndIsAnError) {
    SamplerOptions options;
    options.grammar = "root ::= []";  // no character at all
    Sampler sampler(model(), options);
    const int32_t token = sampler.sample(random_logits(0));
    EXPECT_TRUE(model().is_eog(token));

    options.grammar = "root ::= <[999999]>";  // a token that does not exist
    Sampler dead(model(), options);
    expect_error(ErrorCode::runtime, "the grammar cannot be continued by any token of the vocabulary",
                 [&] { (void)dead.sample(random_logits(0)); });
}

TEST(Grammar, RefusesATokenThatItDoesNotAllow) {
    SamplerOptions options;
    options.grammar = "root ::= \"yes\"";
    Sampler sampler(model(), options);
    const int32_t wrong = model().tokenize("the", false, false).front();
    const int32_t end = model().tokenize("<|im_end|>", false, true).front();
    expect_error(ErrorCode::runtime, "the grammar does not allow token", [&] { sampler.accept(end); });
    expect_error(ErrorCode::runtime, "the grammar did not allow the last token",
                 [&] { (void)sampler.sample(random_logits(0)); });
    sampler.reset();
    expect_error(ErrorCode::runtime, "the grammar does not allow token", [&] { sampler.accept(wrong); });
    expect_error(ErrorCode::runtime, "the grammar does not allow token", [&] { sampler.accept(-5); });
}

// Grammars put together at random: parsed or refused, continued or at a dead end, but never the end of the process.
TEST(Grammar, NeverEndsTheProcess) {
    const char * const parts[] = {"root", "::=",   "\"a\"", "[a-z]",      "[^\"]",
                                  "|",    "(",     ")",     "*",          "+",
                                  "?",    "{2,3}", "\n",    "b",          "b ::= ",
                                  ".",    "[]",    "<[3]>", "!<[4]>",     "\"\\u00e9\"",
                                  "#",    "\"\"",  "{0}",   "<|im_end|>", "[\xC3\xA9-\xF0\x9F\x98\x80]",
                                  "\xC3", "\\",    "-"};
    std::mt19937_64 random(5);
    for (int batch = 0; batch < 8; ++batch) {
        std::vector<std::string> grammars;
        for (int i = 0; i < 40; ++i) {
            std::string grammar = "root ::= ";
            for (uint64_t n = 1 + random() % 9; n > 0; --n) {
                grammar += parts[random() % std::size(parts)] + std::string(" ");
            }
            grammars.push_back(grammar + "\nb ::= \"b\" b | \"c\"");
        }
        EXPECT_NE(test::outcome_of([&] {
                      for (const std::string & grammar : grammars) {
                          try {
                              SamplerOptions options = with_temp(1.0F);
                              options.grammar = grammar;
                              Sampler sampler(model(), options);
                              for (uint64_t i = 0; i < 6; ++i) {
                                  sampler.accept(sampler.sample(random_logits(i)));
                              }
                          } catch (const Error &) {
                              continue;
                          }
                      }
                  }),
                  Outcome::crash)
            << "batch " << batch;
    }
}

TEST(Log, CallbackGetsWholeLinesAndSilenceIsTheDefault) {
    testing::internal::CaptureStderr();
    std::vector<std::string> lines;
    (void)model();
    set_log_callback([&](LogLevel, std::string_view line) { lines.emplace_back(line); }, LogLevel::debug);
    const TextModel again{GgufFile(std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf")};
    set_log_callback({});
    const size_t n = lines.size();
    EXPECT_GT(n, 10U);
    for (const std::string & line : lines) {
        EXPECT_EQ(line.find('\n'), std::string::npos);
    }
    const TextModel silent{GgufFile(std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf")};
    EXPECT_EQ(lines.size(), n);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(AbortHandlerDeathTest, OneSentenceAndExitCodeOne) {
    EXPECT_EXIT(
        {
            install_abort_handler();
            GGML_ABORT("the reason\n");
        },
        testing::ExitedWithCode(1), "^kvsieve: ggml gave up: .*the reason\n$");
}

}  // namespace
}  // namespace kvsieve
