// SPDX-License-Identifier: MIT
// SmolLM2-135M (q4_1 weights, 9 query heads on 3 KV heads) against libllama on the passages of tests/data: prompts of
// 16 to 700 tokens, the rest of each passage teacher-forced token by token. docs/parity.md has rule and figures.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "engine/answers.h"
#include "support/libllama_reference.h"
#include "support/logits.h"

#ifdef KVSIEVE_SMOLLM2  // a test that cannot run is left out by CMake, which says so
namespace kvsieve::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kPassages = 1;
constexpr size_t kMinForced = 100;
#else
constexpr size_t kPassages = 8;
constexpr size_t kMinForced = 1000;
#endif

struct Text {
    std::vector<int32_t> prompt, answer;
};

/// The first words of passage i; behind the first three passages for the last one, so that it takes two chunks.
std::vector<Text> texts(const ReferenceModel & model) {
    const std::vector<std::string> all = passages();
    std::vector<Text> out;
    for (size_t i = 0; i < std::min(kPassages, all.size()); ++i) {
        const std::string before = i + 1 == all.size() ? all[0] + "\n\n" + all[1] + "\n\n" + all[2] + "\n\n" : "";
        Text text;
        text.prompt = model.tokenize(before, true);
        const std::vector<int32_t> tokens = model.tokenize(all[i], false);
        const auto cut = static_cast<int64_t>(16 + 6 * i);
        text.prompt.insert(text.prompt.end(), tokens.begin(), tokens.begin() + cut);
        text.answer.assign(tokens.begin() + cut, tokens.end());
        out.push_back(std::move(text));
    }
    return out;
}

Logits reference(const ReferenceModel & model, const std::vector<Text> & all, bool flash, ggml_type type) {
    ReferenceContext context(model, flash, type, 2048);
    Logits out;
    for (const Text & text : all) {
        context.reset();
        out.push_back(context.feed(text.prompt));
        for (size_t i = 0; i + 1 < text.answer.size(); ++i) {
            out.push_back(context.feed(std::span(text.answer).subspan(i, 1)));
        }
    }
    return out;
}

Logits ours(const std::vector<Text> & all, KvType type) {
    SessionOptions options;
    options.kv_type = type;
    Session session(Model::load({KVSIEVE_SMOLLM2, {}, 2}), options);
    Logits out;
    const auto add = [&](std::span<const float> logits) { out.emplace_back(logits.begin(), logits.end()); };
    for (const Text & text : all) {
        session.reset();
        add(session.feed(text.prompt));
        for (size_t i = 0; i + 1 < text.answer.size(); ++i) {
            add(session.feed(std::span(text.answer).subspan(i, 1)));
        }
    }
    return out;
}

double perplexity(const Logits & logits, const std::vector<Text> & all) {
    double sum = 0;
    size_t at = 0;
    for (const Text & text : all) {
        for (const int32_t token : text.answer) {
            sum -= log_softmax(logits[at++])[static_cast<size_t>(token)];
        }
    }
    return std::exp(sum / static_cast<double>(at));
}

TEST(TextParity, SmolLm2TeacherForced) {
    const ReferenceModel model(KVSIEVE_SMOLLM2);
    const std::vector<Text> all = texts(model);
    const Logits plain = reference(model, all, false, GGML_TYPE_F16);
    const Parity parity = compare(ours(all, KvType::f16), plain, reference(model, all, true, GGML_TYPE_F16));
    std::cout << "teacher-forced tokens " << parity.n << ", bound " << parity.bound << ", max difference "
              << parity.difference << ", mean KL " << parity.mean_kl << ", decided " << 100 * parity.decided()
              << " %, perplexity " << perplexity(plain, all) << "\n";
    EXPECT_GE(parity.n, kMinForced);
    EXPECT_GT(parity.bound, 0.0);
    EXPECT_LE(parity.difference, parity.bound);
    EXPECT_EQ(parity.n_wrong, 0U);
    EXPECT_GE(parity.decided(), 0.95);
    EXPECT_LT(parity.mean_kl, 1e-3);
}

class TextPerplexity : public testing::TestWithParam<std::pair<KvType, ggml_type>> {};

TEST_P(TextPerplexity, WithQuantisedRowsIsLibllamas) {
    const auto & [type, their_type] = GetParam();
    const ReferenceModel model(KVSIEVE_SMOLLM2);
    const std::vector<Text> all = texts(model);
    const double our_perplexity = perplexity(ours(all, type), all);
    const double their_perplexity = perplexity(reference(model, all, true, their_type), all);
    std::cout << kv_type_name(type) << ": perplexity " << our_perplexity << ", libllama's " << their_perplexity << "\n";
    EXPECT_LE(our_perplexity, 1.005 * their_perplexity);
}

INSTANTIATE_TEST_SUITE_P(Types, TextPerplexity,
                         testing::Values(std::pair{KvType::q8_0, GGML_TYPE_Q8_0},
                                         std::pair{KvType::q4_0, GGML_TYPE_Q4_0}));

}  // namespace
}  // namespace kvsieve::test
#endif
