// SPDX-License-Identifier: MIT
// Orders against a plain stable sort, on numbers that try the shortcuts: ties, patterns, many zeros, both signs.
#include "policy/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <tuple>

#include "policy/select.h"

namespace kvsieve {
namespace {

struct Kind {
    const char * name;
    double (*make)(size_t k, std::mt19937 & random);
};

const Kind kKinds[] = {
    {"spread", [](size_t, std::mt19937 & r) { return std::exp(4 - 12e-9 * static_cast<double>(r() % 1'000'000'000)); }},
    {"few_values", [](size_t, std::mt19937 & r) { return static_cast<double>(r() % 5); }},
    {"constant", [](size_t, std::mt19937 &) { return 0.25; }},
    {"zeros_of_both_signs", [](size_t, std::mt19937 & r) { return r() % 2 == 0 ? 0.0 : -0.0; }},
    {"both_signs", [](size_t, std::mt19937 & r) { return (r() % 3 == 0 ? -1.0 : 1.0) * static_cast<double>(r()); }},
    {"rising", [](size_t k, std::mt19937 &) { return static_cast<double>(k); }},
    {"falling", [](size_t k, std::mt19937 &) { return -1e-300 * static_cast<double>(k); }},
    {"periodic", [](size_t k, std::mt19937 &) { return k % 32 == 0 ? 1e300 : 1.0 + static_cast<double>(k % 7); }},
    {"one_peak", [](size_t k, std::mt19937 &) { return k == 777 ? 1.0 : 0.0; }},
    {"next_to_each_other", [](size_t, std::mt19937 & r) { return std::nextafter(1.0, 2.0) + 1e-16 * (r() % 4); }},
};

std::vector<double> numbers(const Kind & kind, size_t n, std::mt19937 & random) {
    std::vector<double> out(n);
    for (size_t k = 0; k < n; ++k) {
        out[k] = kind.make(k, random);
    }
    return out;
}

std::vector<uint8_t> some_mask(size_t n, std::mt19937 & random) {
    std::vector<uint8_t> mask(n, 1);
    switch (random() % 3) {
        case 0:
            break;
        case 1:
            mask.front() = mask.back() = 0;
            break;
        default:
            for (uint8_t & m : mask) {
                m = random() % 4 == 0 ? 0 : 1;
            }
    }
    return mask;
}

size_t some_size(int round, std::mt19937 & random) {
    return round % 4 == 0 ? 4096 + random() % 40'000 : 1 + random() % 700;
}

class Order : public testing::TestWithParam<Kind> {};

TEST_P(Order, SelectionIsThatOfAStableSort) {
    std::mt19937 random(5);
    CutScratch scratch;  // one for all
    for (int round = 0; round < 60; ++round) {
        const size_t n = some_size(round, random);
        const std::vector<double> score = numbers(GetParam(), n, random);
        const std::vector<uint8_t> mask = some_mask(n, random);
        const auto runs = runs_of(mask);
        std::vector<int32_t> order, expected;
        for (size_t k = 0; k < n; ++k) {
            (mask[k] != 0 ? order : expected).push_back(static_cast<int32_t>(k));
        }
        ASSERT_EQ(n_places(runs), order.size());
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return score[static_cast<size_t>(a)] < score[static_cast<size_t>(b)];
        });
        const size_t n_drop = random() % (order.size() + 1);
        expected.insert(expected.end(), order.begin() + static_cast<std::ptrdiff_t>(n_drop), order.end());
        std::sort(expected.begin(), expected.end());
        const Values values{.all = score, .runs = runs, .n = order.size()};
        ASSERT_EQ(keep_best(values, static_cast<int64_t>(n_drop), scratch), expected) << n << " " << n_drop;
        const Cut wrong{.value = score[n / 2], .n_tied = 1};
        ASSERT_EQ(keep_best(values, static_cast<int64_t>(n_drop), scratch, &wrong), expected) << n << " " << n_drop;
    }
}

TEST_P(Order, PoolIsThatOfAStableSort) {
    std::mt19937 random(6);
    CutScratch scratch;
    for (int round = 0; round < 40; ++round) {
        const size_t n = some_size(round, random), n_array = 1 + random() % 4;
        const std::vector<uint8_t> mask = some_mask(n, random);
        const auto runs = runs_of(mask);
        const auto n_each = static_cast<int64_t>(n_places(runs));
        const int64_t n_best = random() % 3 == 0 ? 0 : static_cast<int64_t>(random()) % (n_each + 1);
        std::vector<std::vector<double>> scores;
        for (size_t a = 0; a < n_array; ++a) {
            scores.push_back(numbers(GetParam(), n, random));
        }
        std::vector<Values> arrays;
        std::vector<std::tuple<double, size_t, size_t>> pool;  // value, place, array
        for (size_t a = 0; a < n_array; ++a) {
            arrays.push_back({.all = scores[a], .runs = runs, .n = static_cast<size_t>(n_each)});
            std::vector<std::pair<double, size_t>> own;
            for (size_t k = 0; k < n; ++k) {
                if (mask[k] != 0) {
                    own.emplace_back(scores[a][k], k);
                }
            }
            std::sort(own.begin(), own.end());
            for (int64_t i = 0; i < n_each - n_best; ++i) {
                pool.emplace_back(own[static_cast<size_t>(i)].first, own[static_cast<size_t>(i)].second, a);
            }
        }
        std::sort(pool.begin(), pool.end());
        const size_t n_drop = random() % (pool.size() + 1);
        std::vector<int64_t> dropped(n_array, 0);
        for (size_t i = 0; i < n_drop; ++i) {
            ++dropped[std::get<2>(pool[i])];
        }
        const std::vector<PoolCut> cuts = cut_pool(arrays, n_best, static_cast<int64_t>(pool.size() - n_drop), scratch);
        ASSERT_EQ(cuts.size(), n_array);
        for (size_t a = 0; a < n_array; ++a) {
            ASSERT_EQ(cuts[a].n_drop, dropped[a]) << "array " << a << " of " << n << ", without " << n_best;
            ASSERT_EQ(keep_best(arrays[a], dropped[a], scratch, &cuts[a].cut),
                      keep_best(arrays[a], dropped[a], scratch));
        }
    }
}

TEST_P(Order, DescendingIsThatOfASort) {
    std::mt19937 random(7);
    for (int round = 0; round < 12; ++round) {
        std::vector<double> values = numbers(GetParam(), some_size(round, random), random);
        Descending sorted(values);
        ASSERT_EQ(sorted.size(), values.size());
        std::sort(values.begin(), values.end(), std::greater<>());
        size_t n = 0;
        while (n < values.size()) {
            sorted.sort_more();
            ASSERT_GT(sorted.n_sorted(), n);
            for (; n < sorted.n_sorted(); ++n) {
                ASSERT_EQ(sorted.at(n), values[n]) << n;
            }
        }
        sorted.sort_more();
        ASSERT_EQ(sorted.n_sorted(), n);
    }
}

INSTANTIATE_TEST_SUITE_P(Numbers, Order, testing::ValuesIn(kKinds),
                         [](const auto & kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace kvsieve
