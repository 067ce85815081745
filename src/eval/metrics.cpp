// SPDX-License-Identifier: MIT
#include "eval/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "eval/edit_distance.h"
#include "eval/unicode.h"

namespace kvsieve {
namespace {

constexpr double kAnlsThreshold = 0.5;
constexpr double kRelaxedChange = 0.05;

bool is_digit(char32_t c) {
    return c >= U'0' && c <= U'9';
}

std::vector<std::string> rouge_tokens(std::string_view text) {
    std::vector<std::string> tokens;
    bool inside = false;
    for (char32_t c : decode_utf8(text)) {
        // The only letters outside of ASCII whose lower case is in it: the Kelvin sign, and dotted I, whose Python
        // lower case is an i and a combining dot.
        const bool dotted = c == 0x130;
        c = c == 0x212A ? U'k' : dotted ? U'i' : c >= U'A' && c <= U'Z' ? c - U'A' + U'a' : c;
        const bool counts = is_digit(c) || (c >= U'a' && c <= U'z');
        if (counts && !inside) {
            tokens.emplace_back();
        }
        if (counts) {
            tokens.back().push_back(static_cast<char>(c));
        }
        inside = counts && !dotted;
    }
    return tokens;
}

size_t common_subsequence(const std::vector<std::string> & a, const std::vector<std::string> & b) {
    std::vector<size_t> row(b.size() + 1, 0);
    for (const std::string & token : a) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t above = row[j];
            row[j] = token == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
            diagonal = above;
        }
    }
    return row.back();
}

/// ' '.join(text.strip().lower().split())
std::u32string normalised(std::string_view text) {
    std::u32string out;
    for (const char32_t c : to_lower(decode_utf8(text))) {
        if (!is_python_space(c)) {
            out.push_back(c);
        } else if (!out.empty() && out.back() != U' ') {
            out.push_back(U' ');
        }
    }
    if (!out.empty() && out.back() == U' ') {
        out.pop_back();
    }
    return out;
}

/// What Python's float() makes of ASCII text: white space around, a sign, digits with single underscores between
/// them, an exponent, inf, infinity, nan.
std::optional<double> python_float(std::u32string_view text) {
    text = strip(text);
    std::string plain;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] >= 0x80) {
            return std::nullopt;
        }
        if (text[i] == U'_') {
            if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
                return std::nullopt;
            }
            continue;
        }
        plain.push_back(static_cast<char>(text[i] >= U'A' && text[i] <= U'Z' ? text[i] - U'A' + U'a' : text[i]));
    }
    const bool negative = plain.starts_with('-');
    if (negative || plain.starts_with('+')) {
        plain.erase(0, 1);
    }
    double value = 0;
    if (plain == "inf" || plain == "infinity") {
        value = std::numeric_limits<double>::infinity();
    } else if (plain == "nan") {
        value = std::numeric_limits<double>::quiet_NaN();
    } else {
        if (plain.empty() || !(is_digit(static_cast<unsigned char>(plain[0])) || plain[0] == '.')) {
            return std::nullopt;
        }
        const char * const end = plain.data() + plain.size();
        const auto [rest, ec] = std::from_chars(plain.data(), end, value);
        if (rest != end || ec == std::errc::invalid_argument) {
            return std::nullopt;
        }
        if (ec == std::errc::result_out_of_range) {  // Python gives inf or 0
            const size_t e = plain.find('e');
            const bool tiny = e != std::string::npos && plain.compare(e + 1, 1, "-") == 0;
            value = tiny ? 0.0 : std::numeric_limits<double>::infinity();
        }
    }
    return negative ? -value : value;
}

std::optional<double> chart_number(std::u32string_view text) {
    if (!text.ends_with(U'%')) {
        return python_float(text);
    }
    while (text.ends_with(U'%')) {
        text.remove_suffix(1);
    }
    const auto percent = python_float(text);
    return percent ? std::optional(*percent / 100.0) : std::nullopt;
}

bool relaxed_match(std::u32string_view prediction, std::u32string_view answer) {
    const auto came = chart_number(prediction), expected = chart_number(answer);
    if (came && expected && *expected != 0.0) {
        return std::abs(*came - *expected) / std::abs(*expected) <= kRelaxedChange;
    }
    return to_lower(prediction) == to_lower(answer);
}

}  // namespace

double quantile(std::vector<double> values, double share) {
    if (values.empty()) {
        return 0.0;
    }
    std::sort(values.begin(), values.end());
    const double rank = std::ceil(share * static_cast<double>(values.size())) - 1;
    return values[static_cast<size_t>(std::max(rank, 0.0))];
}

double log_sum_exp(std::span<const float> logits) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float x : logits) {
        sum += std::exp(static_cast<double>(x) - top);
    }
    return top + std::log(sum);
}

double token_nll(std::span<const float> logits, int32_t token) {
    return log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

void Perplexity::add(double token_nll) {
    nll += token_nll;
    ++n_tokens;
}

void Perplexity::add(const Perplexity & other) {
    nll += other.nll;
    n_tokens += other.n_tokens;
}

double Perplexity::value() const {
    return std::exp(nll / static_cast<double>(n_tokens));
}

double rouge_l(std::string_view prediction, std::string_view reference) {
    const auto came = rouge_tokens(prediction), expected = rouge_tokens(reference);
    const auto common = static_cast<double>(came.empty() || expected.empty() ? 0 : common_subsequence(came, expected));
    if (common == 0) {
        return 0.0;
    }
    const double precision = common / static_cast<double>(came.size());
    const double recall = common / static_cast<double>(expected.size());
    return 2 * precision * recall / (precision + recall);
}

double exact_match(std::string_view prediction, std::span<const std::string> answers) {
    const std::u32string came = normalised(prediction);
    return std::any_of(answers.begin(), answers.end(), [&](const auto & answer) { return normalised(answer) == came; });
}

double anls(std::string_view prediction, std::span<const std::string> answers) {
    const std::u32string came = normalised(prediction);
    double best = 0.0;
    for (const std::string & answer : answers) {
        const std::u32string expected = normalised(answer);
        const size_t longest = std::max(came.size(), expected.size());
        const double distance =
            longest == 0 ? 0.0
                         : static_cast<double>(edit_distance<char32_t>(came, expected)) / static_cast<double>(longest);
        best = std::max(best, distance < kAnlsThreshold ? 1.0 - distance : 0.0);
    }
    return best;
}

double relaxed_accuracy(std::string_view prediction, std::span<const std::string> answers) {
    const std::u32string text = decode_utf8(prediction);
    const std::u32string_view came = strip(text);
    return std::any_of(answers.begin(), answers.end(), [&](const auto & answer) {
        const std::u32string expected = decode_utf8(answer);
        return relaxed_match(came, strip(expected));
    });
}

}  // namespace kvsieve
