// SPDX-License-Identifier: MIT
// Comparing logits of two implementations on the same tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace kvsieve::test {

using Logits = std::vector<std::vector<float>>;  // [n_positions][n_vocab]

/// NaN or infinite when something is: no comparison with a bound holds then.
[[nodiscard]] inline double max_difference(std::span<const float> a, std::span<const float> b) {
    double most = a.size() == b.size() ? 0.0 : INFINITY;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
        const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        most = std::isnan(most) || d <= most ? most : d;
    }
    return most;
}

[[nodiscard]] inline double max_difference(const Logits & a, const Logits & b) {
    double most = a.size() == b.size() ? 0.0 : INFINITY;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
        const double d = max_difference(a[i], b[i]);
        most = std::isnan(most) || d <= most ? most : d;
    }
    return most;
}

[[nodiscard]] inline int32_t argmax(std::span<const float> x) {
    return static_cast<int32_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

/// Distance from the largest to the second largest value.
[[nodiscard]] inline double top_two_gap(std::span<const float> x) {
    float first = -INFINITY, second = -INFINITY;
    for (const float v : x) {
        if (v > first) {
            second = first;
            first = v;
        } else if (v > second) {
            second = v;
        }
    }
    return static_cast<double>(first) - static_cast<double>(second);
}

[[nodiscard]] inline std::vector<double> log_softmax(std::span<const float> x) {
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) {
        sum += std::exp(static_cast<double>(v) - top);
    }
    const double norm = top + std::log(sum);
    std::vector<double> out(x.size());
    std::transform(x.begin(), x.end(), out.begin(), [&](float v) { return static_cast<double>(v) - norm; });
    return out;
}

/// KL(softmax(p) || softmax(q)).
[[nodiscard]] inline double kl_divergence(std::span<const float> p, std::span<const float> q) {
    const std::vector<double> a = log_softmax(p);
    const std::vector<double> b = log_softmax(q);
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        sum += std::exp(a[i]) * (a[i] - b[i]);
    }
    return sum;
}

/// What the parity rule of this project asks of ours against a reference that was computed in two ways.
struct Parity {
    double bound = 0;       ///< 2 x max difference of the two references
    double difference = 0;  ///< max difference of ours to the first reference
    double mean_kl = 0;     ///< of the first reference to ours
    size_t n = 0;           ///< positions
    size_t n_decided = 0;   ///< positions whose top-two gap exceeds the bound
    size_t n_wrong = 0;     ///< decided positions where the argmax differs
    [[nodiscard]] double decided() const { return static_cast<double>(n_decided) / static_cast<double>(n); }
};

[[nodiscard]] inline Parity compare(const Logits & ours, const Logits & reference, const Logits & other_reference) {
    Parity out;
    out.bound = 2.0 * max_difference(reference, other_reference);
    out.difference = max_difference(ours, reference);
    out.n = reference.size();
    for (size_t i = 0; i < out.n; ++i) {
        out.mean_kl += kl_divergence(reference[i], ours[i]) / static_cast<double>(out.n);
        if (top_two_gap(reference[i]) > out.bound) {
            ++out.n_decided;
            out.n_wrong += argmax(reference[i]) == argmax(ours[i]) ? 0 : 1;
        }
    }
    return out;
}

}  // namespace kvsieve::test
