// SPDX-License-Identifier: MIT
#include "policy/byte_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace kvsieve {
namespace {

struct Lists {
    std::vector<std::vector<double>> scores;
    std::vector<Run> runs;
    std::vector<ByteList> lists;
};

/// Scores over some octaves, heads of different size.
Lists some_lists(size_t n_list, size_t n, uint32_t seed, double key_noise = 0.0) {
    Lists out;
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    out.runs = {{0, n}};
    for (size_t i = 0; i < n_list; ++i) {
        const double size = std::exp(normal(rng));
        std::vector<double> & scores = out.scores.emplace_back(n);
        std::generate(scores.begin(), scores.end(), [&] { return size * std::exp(2.0 * normal(rng)); });
    }
    for (const auto & scores : out.scores) {
        out.lists.push_back({{.all = scores, .runs = out.runs, .n = n}, key_noise});
    }
    return out;
}

int64_t cost_of(const std::vector<ByteShare> & shares) {
    int64_t cost = 0;
    for (const ByteShare & share : shares) {
        cost += share.n_kept * row_cost(share.type);
    }
    return cost;
}

/// What share_bytes() minimises.
double loss_of(const Lists & of, const std::vector<ByteShare> & shares) {
    const auto error = [](KvType type) { return type == KvType::f16 ? 0.0 : type == KvType::q8_0 ? 2.9e-5 : 7.4e-3; };
    double loss = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
        std::vector<double> sorted = of.scores[i];
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        for (size_t k = 0; k < sorted.size(); ++k) {
            loss += sorted[k] * sorted[k] *
                    (std::cmp_less(k, shares[i].n_kept) ? kValueErrorWeight * error(shares[i].type) : 1.0);
        }
        loss += error(shares[i].type) * of.lists[i].key_noise;
    }
    return loss;
}

TEST(BytePool, SpendsTheBudgetAndNoMore) {
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const Lists some = some_lists(1 + seed % 7, 50 + 13 * seed, seed);
        const int64_t all = static_cast<int64_t>(some.lists.size() * some.scores[0].size()) * row_cost(KvType::f16);
        for (const double share : {0.0, 0.01, 0.1, 0.27, 0.4, 0.7, 0.99}) {
            const auto budget = static_cast<int64_t>(share * static_cast<double>(all));
            const auto shares = share_bytes(some.lists, budget, 0.3, true, 1);
            EXPECT_LE(cost_of(shares), budget);
            const auto whole = [&](const ByteShare & one) {
                return one.n_kept == static_cast<int64_t>(some.scores[0].size());
            };
            EXPECT_TRUE(cost_of(shares) > budget - row_cost(KvType::f16) || std::ranges::all_of(shares, whole))
                << cost_of(shares) << " of " << budget;
            for (const ByteShare & one : shares) {
                const double safe = 0.3 * static_cast<double>(budget) / static_cast<double>(shares.size());
                EXPECT_GE(static_cast<double>((one.n_kept + 1) * row_cost(one.type)), safe - 1);
                EXPECT_LE(one.n_kept, static_cast<int64_t>(some.scores[0].size()));
            }
        }
    }
}

/// No choice of rows and types within the budget loses less: the largest sum over the lists of the least of what is
/// lost plus `price` times what is paid, minus the price of the budget.
double bound_of(const Lists & of, int64_t budget) {
    const std::vector<double> error = {0.0, 2.9e-5, 7.4e-3};
    double bound = 0;
    for (double power = -30; power < 12; power += 0.25) {
        const double price = std::exp2(power);
        double sum = -price * static_cast<double>(budget);
        for (size_t i = 0; i < of.lists.size(); ++i) {
            double least = std::numeric_limits<double>::infinity();
            for (size_t t = 0; t < 3; ++t) {
                const auto cost = static_cast<double>(row_cost(static_cast<KvType>(t)));
                double loss = error[t] * of.lists[i].key_noise;
                for (const double x : of.scores[i]) {
                    loss += std::min(x * x, kValueErrorWeight * error[t] * x * x + price * cost);
                }
                least = std::min(least, loss);
            }
            sum += least;
        }
        bound = std::max(bound, sum);
    }
    return bound;
}

TEST(BytePool, NothingLosesMuchLess) {
    for (uint32_t seed = 0; seed < 6; ++seed) {
        const Lists some = some_lists(60, 200, seed + 100, seed % 3 == 0 ? 500.0 : 0.0);
        for (const double share : {0.05, 0.1, 0.3, 0.6}) {
            const auto budget = static_cast<int64_t>(share * 60 * 200 * static_cast<double>(row_cost(KvType::f16)));
            const auto shares = share_bytes(some.lists, budget, 0.0, true, 1);
            EXPECT_LE(loss_of(some, shares), 1.1 * bound_of(some, budget)) << seed << " " << share;
        }
    }
}

TEST(BytePool, KeysThatMustBeExactGetMoreBits) {
    const Lists careless = some_lists(4, 300, 9), careful = some_lists(4, 300, 9, 1e7);
    const int64_t budget = 4 * 300 * 64 / 5;
    const auto bits = [&](const Lists & some) {
        int64_t sum = 0;
        for (const ByteShare & share : share_bytes(some.lists, budget, 0.5, true, 1)) {
            sum += row_cost(share.type);
        }
        return sum;
    };
    EXPECT_GT(bits(careful), bits(careless));
    for (const ByteShare & share : share_bytes(careful.lists, budget, 0.5, false, 1)) {
        EXPECT_EQ(share.type, KvType::f16);
    }
}

TEST(BytePool, DegenerateScores) {
    for (const double value : {0.0, 1.0, 1e-200, 1e150}) {
        Lists some = some_lists(3, 100, 1);
        for (auto & scores : some.scores) {
            std::fill(scores.begin(), scores.end(), value);
        }
        const auto shares = share_bytes(some.lists, 5'000, 0.5, true, 2);
        EXPECT_LE(cost_of(shares), 5'000);
        EXPECT_GT(cost_of(shares), 5'000 - 64);
    }
}

}  // namespace
}  // namespace kvsieve
