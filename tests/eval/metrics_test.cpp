// SPDX-License-Identifier: MIT
#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/digest.h"
#include "eval/inequality.h"
#include "eval/unicode.h"

namespace kvsieve {
namespace {

using Texts = std::vector<std::string>;

TEST(Quantile, IsTheNearestRank) {
    EXPECT_EQ(quantile({}, 0.5), 0.0);
    EXPECT_EQ(quantile({7.0}, 0.99), 7.0);
    const std::vector<double> four = {4.0, 1.0, 3.0, 2.0};
    EXPECT_EQ(quantile(four, 0.0), 1.0);
    EXPECT_EQ(quantile(four, 0.5), 2.0);
    EXPECT_EQ(quantile(four, 0.51), 3.0);
    EXPECT_EQ(quantile(four, 1.0), 4.0);
}

TEST(Metrics, PerplexityIsExpOfTheMeanOverAllTokens) {
    Perplexity one, two;
    EXPECT_TRUE(std::isnan(one.value()));
    one.add(std::log(2.0));
    two.add(std::log(8.0));
    two.add(std::log(4.0));
    one.add(two);
    EXPECT_EQ(one.n_tokens, 3);
    EXPECT_DOUBLE_EQ(one.value(), 4.0);  // (2 x 8 x 4)^(1/3)
}

TEST(Metrics, TokenNllIsTheLogSoftmax) {
    EXPECT_NEAR(token_nll(std::vector<float>(7, -3.0F), 2), std::log(7.0), 1e-12);
    EXPECT_NEAR(token_nll(std::vector<float>{0.0F, std::log(3.0F)}, 0), std::log(4.0), 1e-7);
    EXPECT_NEAR(token_nll(std::vector<float>{1000.0F, 0.0F}, 1), 1000.0, 1e-9);
}

// By hand: LCS of (the cat sat on mat) and (the cat on the mat) is 4 of 5 and 5.
TEST(Metrics, RougeLWorkedTable) {
    EXPECT_DOUBLE_EQ(rouge_l("The cat sat on mat", "the cat, on the MAT!"), 0.8);
    EXPECT_DOUBLE_EQ(rouge_l("a b c", "a b c d e f"), 2 * 1.0 * 0.5 / 1.5);
    EXPECT_DOUBLE_EQ(rouge_l("don't", "don t"), 1.0);
    EXPECT_DOUBLE_EQ(rouge_l("東京", "東京"), 0.0);
    EXPECT_DOUBLE_EQ(rouge_l("", ""), 0.0);
}

TEST(Metrics, ExactMatchWorkedTable) {
    EXPECT_EQ(exact_match("  Staff   record\n", Texts{"x", "Staff Record"}), 1.0);
    EXPECT_EQ(exact_match("$733.76", Texts{"733.76"}), 0.0);
    EXPECT_EQ(exact_match("ÄRGER", Texts{"ärger"}), 1.0);
    EXPECT_EQ(exact_match("", Texts{"a"}), 0.0);
}

// DocVQA: s = 1 - NL where NL < 0.5.
TEST(Metrics, AnlsWorkedTable) {
    EXPECT_DOUBLE_EQ(anls("kitten", Texts{"sitting"}), 1.0 - 3.0 / 7.0);
    EXPECT_DOUBLE_EQ(anls("ab", Texts{"ax"}), 0.0);  // NL is 0.5, not below it
    EXPECT_DOUBLE_EQ(anls("abc", Texts{"abx", "ABC "}), 1.0);
    EXPECT_DOUBLE_EQ(anls("naïve", Texts{"naive"}), 1.0 - 1.0 / 5.0);  // code points, not bytes
}

TEST(Metrics, RelaxedAccuracyWorkedTable) {
    EXPECT_EQ(relaxed_accuracy("104.9", Texts{"100"}), 1.0);
    EXPECT_EQ(relaxed_accuracy("105.1", Texts{"100"}), 0.0);
    EXPECT_EQ(relaxed_accuracy("-95.1", Texts{"-100"}), 1.0);
    EXPECT_EQ(relaxed_accuracy("12%", Texts{"0.12"}), 1.0);
    EXPECT_EQ(relaxed_accuracy("0.0", Texts{"0"}), 0.0);  // the answer 0 is compared as text
    EXPECT_EQ(relaxed_accuracy("0", Texts{"0"}), 1.0);
    EXPECT_EQ(relaxed_accuracy("1,000", Texts{"1000"}), 0.0);
    EXPECT_EQ(relaxed_accuracy("Yes", Texts{"no", "yes"}), 1.0);
    EXPECT_EQ(relaxed_accuracy("yes please", Texts{"yes"}), 0.0);
}

// tools/eval/check_metrics.py: rouge-score, rapidfuzz, and the published formulas.
TEST(Metrics, AgreeWithIndependentImplementations) {
    const char * const other = std::getenv("KVSIEVE_METRIC_TABLE");
    std::ifstream file(other != nullptr ? other : KVSIEVE_TEST_DATA "/eval/metrics.jsonl");
    int n = 0;
    for (std::string line; std::getline(file, line); ++n) {
        const auto row = nlohmann::json::parse(line);
        const auto prediction = row["prediction"].get<std::string>();
        const auto answers = row["answers"].get<Texts>();
        EXPECT_NEAR(rouge_l(prediction, answers[0]), row["rouge_l"].get<double>(), 1e-12) << line;
        EXPECT_NEAR(anls(prediction, answers), row["anls"].get<double>(), 1e-12) << line;
        EXPECT_EQ(exact_match(prediction, answers), row["exact_match"].get<double>()) << line;
        EXPECT_EQ(relaxed_accuracy(prediction, answers), row["relaxed_accuracy"].get<double>()) << line;
    }
    EXPECT_GE(n, 300);
}

TEST(Metrics, InvalidUtf8BecomesReplacementCharacters) {
    EXPECT_EQ(decode_utf8("a\xC3\xA9"), U"a\u00E9");
    EXPECT_EQ(decode_utf8("\xC3"), U"\uFFFD");
    EXPECT_EQ(decode_utf8("\xC0\xAF"), U"\uFFFD\uFFFD");            // overlong
    EXPECT_EQ(decode_utf8("\xED\xA0\x80"), U"\uFFFD\uFFFD\uFFFD");  // a surrogate
    EXPECT_EQ(decode_utf8("\xF0\x9F\x98\x80z"), U"\U0001F600z");
}

// Four tokens of 1, 1, 2, 4: shares 1/8, 2/8, 4/8, 8/8 at quarters.
TEST(Inequality, LorenzAndGiniByHand) {
    const std::vector<float> importance{4, 1, 2, 1};
    const std::vector<double> expected{0, 0.125, 0.25, 0.5, 1};
    EXPECT_EQ(lorenz_curve(importance, 5), expected);
    EXPECT_DOUBLE_EQ(lorenz_curve(importance, 9)[7], 0.75);
    // twice the trapezia of width 1/4
    EXPECT_DOUBLE_EQ(gini(importance), 1.0 - (0.125 + 0.375 + 0.75 + 1.5) / 4);
    EXPECT_DOUBLE_EQ(gini(std::vector<float>(5, 2.0F)), 0.0);
    EXPECT_DOUBLE_EQ(gini(std::vector<float>{0, 0, 0, 7}), 0.75);
    EXPECT_DOUBLE_EQ(gini(std::vector<float>(3, 0.0F)), 0.0);
}

// FIPS 180-4's examples
TEST(Digest, Sha256) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace kvsieve
