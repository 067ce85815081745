// SPDX-License-Identifier: MIT
// Quality metrics as the benchmarks define them. Texts are UTF-8; invalid bytes count as U+FFFD. Stateless functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// Value below which a share of the values lies (nearest rank); 0 of none.
[[nodiscard]] double quantile(std::vector<double> values, double share);

/// log of the sum of exp(logit), summed in double.
[[nodiscard]] double log_sum_exp(std::span<const float> logits);
/// Negative log likelihood in nats of `token` under the softmax of `logits` [n_vocab], summed in double.
[[nodiscard]] double token_nll(std::span<const float> logits, int32_t token);

/// Perplexity over any number of answers: exp of the mean NLL over all their tokens.
struct Perplexity {
    double nll = 0.0;
    int64_t n_tokens = 0;

    void add(double token_nll);
    void add(const Perplexity & other);
    /// NaN without a token.
    [[nodiscard]] double value() const;
};

/// ROUGE-L F1 as the PyPI package rouge-score computes it without stemming: tokens are the runs of [a-z0-9] of the
/// lower-cased text, F1 of their longest common subsequence. 0 where either text has no token.
[[nodiscard]] double rouge_l(std::string_view prediction, std::string_view reference);

/// 1 where the prediction equals one of the answers, else 0, after: lower case, white space at the ends removed,
/// each run of white space inside one space.
[[nodiscard]] double exact_match(std::string_view prediction, std::span<const std::string> answers);

/// Average normalised Levenshtein similarity of one question (DocVQA): the best over the answers of
/// s = 1 - distance / max(length), in code points, after exact_match()'s normalisation; 0 where s is at most 0.5
/// (distance / max(length) reaches the threshold 0.5).
[[nodiscard]] double anls(std::string_view prediction, std::span<const std::string> answers);

/// ChartQA's relaxed accuracy, the best over the answers: where both are numbers, and the answer is not 0, 1 within
/// 5% of the answer; else 1 where the lower-cased texts are equal. "12%" is the number 0.12; "$5" and "1,000" are no
/// numbers. White space at the ends is removed before.
[[nodiscard]] double relaxed_accuracy(std::string_view prediction, std::span<const std::string> answers);

}  // namespace kvsieve
