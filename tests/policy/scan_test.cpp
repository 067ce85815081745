// SPDX-License-Identifier: MIT
#include "policy/scan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

using namespace kvsieve;

namespace {

/// Few different values, so that many equal a limit; both zeros, the smallest numbers and infinity among them.
std::vector<double> some_numbers(size_t n, std::mt19937 & random) {
    const double smallest = std::numeric_limits<double>::denorm_min();
    const double choices[] = {-3, -smallest, -0.0, 0.0, smallest, 1, 2, HUGE_VAL, -HUGE_VAL};
    std::vector<double> out(n);
    for (double & x : out) {
        x = choices[random() % std::size(choices)];
    }
    return out;
}

}  // namespace

TEST(Scan, BetweenIsThatOfAPlainLoop) {
    std::mt19937 random(3);
    for (int round = 0; round < 500; ++round) {
        const std::vector<double> values = some_numbers(random() % 300, random);
        const std::vector<double> limits = some_numbers(2, random);
        std::vector<double> expected;
        int64_t expected_below = 7;
        for (const double x : values) {
            if (x >= limits[0] && x <= limits[1]) {
                expected.push_back(x);
            }
            expected_below += x < limits[0] ? 1 : 0;
        }
        std::vector<double> out(values.size() + kScanSlack);
        int64_t n_below = 7;
        out.resize(scan_between(values.data(), values.size(), limits[0], limits[1], out.data(), n_below));
        ASSERT_EQ(out, expected);
        ASSERT_EQ(n_below, expected_below);
    }
}

TEST(Scan, AboveIsThatOfAPlainLoop) {
    std::mt19937 random(4);
    for (int round = 0; round < 500; ++round) {
        const std::vector<double> values = some_numbers(random() % 300, random);
        const double limit = some_numbers(1, random)[0];
        const auto first = static_cast<int32_t>(random() % 1000);
        std::vector<int32_t> expected;
        for (size_t k = 0; k < values.size(); ++k) {
            if (values[k] > limit) {
                expected.push_back(first + static_cast<int32_t>(k));
            }
        }
        std::vector<int32_t> out(values.size() + kScanSlack);
        out.resize(scan_above(values.data(), values.size(), limit, first, out.data()));
        ASSERT_EQ(out, expected);
    }
}
