// SPDX-License-Identifier: MIT
#include "eval/aggregate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "eval/synthetic.h"

namespace kvsieve {
namespace {

CellResult cell(const CellKey & key, const std::string & sample, double nll, int64_t n_tokens, double exact) {
    return {.sample = sample,
            .group = sample,
            .key = key,
            .keep = key.keep.value_or(0.15),
            .n_prompt = 10,
            .kv_bytes = key.method == "full" ? 200U : 40U,
            .kv_bytes_full = 200,
            .n_tokens = n_tokens,
            .nll = nll,
            .metrics = {{"exact_match", exact}}};
}

const CellKey kFull{.method = "full", .keep = 1.0};
const CellKey kSmall{.method = "prefixkv", .params = {{"a", "x,\"y\""}}, .budget = 0.2};

Results by_hand() {
    Results results;
    results.header.n_head_kv = 2;
    results.header.grid = {kFull, kSmall};
    results.cells = {cell(kFull, "a", 1, 1, 1), cell(kFull, "b", 2, 3, 1), cell(kFull, "c", 0, 1, 0),
                     cell(kSmall, "a", 2, 1, 1), cell(kSmall, "b", 4, 3, 0)};
    results.cells[1].layer_rows = {20, 10};
    results.cells[3].metrics["exact_match_next"] = 1.0;
    results.cells[3].n_next = 1;
    results.cells[4].metrics["exact_match_next"] = 1.0 / 3;
    results.cells[4].n_next = 3;
    results.cells.push_back({.sample = "c", .group = "c", .key = kSmall, .error = "no"});
    return results;
}

TEST(Aggregate, RowsByHand) {
    const std::vector<ReportRow> rows = aggregate(by_hand());
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_DOUBLE_EQ(rows[0].metrics.at("ppl").value, std::exp(3.0 / 5));
    EXPECT_DOUBLE_EQ(rows[0].metrics.at("ppl_ratio").value, 1.0);
    EXPECT_DOUBLE_EQ(rows[0].metrics.at("exact_match").value, 2.0 / 3);
    EXPECT_EQ(rows[0].layer_share, (std::vector{1.0, 0.5}));
    EXPECT_EQ(rows[0].n_tokens, 5);
    EXPECT_DOUBLE_EQ(rows[1].metrics.at("ppl").value, std::exp(6.0 / 4));
    EXPECT_DOUBLE_EQ(rows[1].metrics.at("ppl_ratio").value, std::exp((6.0 - 3.0) / 4));  // on a and b only
    EXPECT_DOUBLE_EQ(rows[1].metrics.at("exact_match_next").value, 0.5);                 // 2 of 4 later questions
    EXPECT_EQ(rows[1].n_samples, 2);
    EXPECT_EQ(rows[1].n_failed, 1);
    EXPECT_DOUBLE_EQ(rows[1].keep, 0.15);
    EXPECT_DOUBLE_EQ(rows[1].share(), 0.2);
}

TEST(Aggregate, IntervalsCoverTheMeanAndMatchTheNormalOne) {
    Results results;
    results.header.grid = {kFull};
    std::mt19937_64 random(5);
    double sum = 0;
    for (int i = 0; i < 400; ++i) {
        const double exact = random() % 10 < 3 ? 1 : 0;
        sum += exact;
        results.cells.push_back(cell(kFull, "s" + std::to_string(i), 1, 1, exact));
    }
    const Estimate estimate = aggregate(results)[0].metrics.at("exact_match");
    const double p = sum / 400, half = 1.96 * std::sqrt(p * (1 - p) / 400);
    EXPECT_DOUBLE_EQ(estimate.value, p);
    EXPECT_NEAR(estimate.low, p - half, 0.15 * half);
    EXPECT_NEAR(estimate.high, p + half, 0.15 * half);

    // ten questions of one image say no more than one: 40 groups, sqrt(10) times the width
    for (size_t i = 0; i < results.cells.size(); ++i) {
        results.cells[i].group = std::to_string(i / 10);
        results.cells[i].metrics["exact_match"] = (i / 10) % 4 == 0 ? 1 : 0;
    }
    const Estimate grouped = aggregate(results)[0].metrics.at("exact_match");
    const double wide = 1.96 * std::sqrt(0.25 * 0.75 / 40);
    EXPECT_NEAR((grouped.high - grouped.low) / 2, wide, 0.15 * wide);
}

TEST(Aggregate, TheSameResultsGiveTheSameBytes) {
    const Results results = test::synthetic_results({.n_samples = 20});
    EXPECT_EQ(rows_as_json(aggregate(results)), rows_as_json(aggregate(results)));
}

TEST(Aggregate, JsonHasTheFieldsAndLeavesOutAbsentMetrics) {
    const auto json = nlohmann::json::parse(rows_as_json(aggregate(by_hand())));
    ASSERT_EQ(json.size(), 2U);
    EXPECT_EQ(json[1]["method"], "prefixkv");
    EXPECT_EQ(json[1]["params"], nlohmann::json({{"a", "x,\"y\""}}));
    EXPECT_EQ(json[0]["budget"], nullptr);
    EXPECT_EQ(json[1]["budget"], 0.2);
    EXPECT_EQ(json[1]["kv_type"], "f16");
    EXPECT_EQ(json[1]["kv_bytes"], 40.0);
    EXPECT_EQ(json[1]["kv_bytes_full"], 200.0);
    EXPECT_EQ(json[1]["n_samples"], 2);
    EXPECT_EQ(json[1]["ppl_ci"].size(), 2U);
    EXPECT_FALSE(json[0].contains("exact_match_next"));
    EXPECT_FALSE(json[0].contains("rouge_l"));
}

TEST(Aggregate, CsvQuotesAndKeepsItsColumns) {
    const std::string csv = rows_as_csv(aggregate(by_hand()));
    EXPECT_EQ(
        csv.substr(0, csv.find('\n')),
        "method,params,keep,budget,kv_type,kv_bytes,kv_bytes_full,n_samples,n_failed,n_tokens,ppl,ppl_low,ppl_high,"
        "ppl_ratio,ppl_ratio_low,ppl_ratio_high,exact_match,exact_match_low,exact_match_high,exact_match_next,"
        "exact_match_next_low,exact_match_next_high");
    EXPECT_NE(csv.find("\nfull,,1,,f16,200,200,3,0,5,"), std::string::npos) << csv;
    EXPECT_NE(csv.find("\nprefixkv,\"a=x,\"\"y\"\"\",0.15,0.2,f16,40,200,2,1,4,"), std::string::npos) << csv;
    EXPECT_NE(csv.find(",,,\nprefixkv"), std::string::npos) << csv;  // no exact_match_next
}

TEST(Leaderboard, TakesBudgetsAsTheyAreAndSortsByQuality) {
    Results results = by_hand();
    const CellKey other{.method = "random", .budget = 0.2};
    results.header.grid.push_back(other);
    results.cells.push_back(cell(other, "a", 1.5, 1, 0));
    const Leaderboard board = leaderboard(aggregate(results), "ppl");
    ASSERT_EQ(board.shares, std::vector{0.2});
    ASSERT_EQ(board.lines.size(), 3U - 1U);  // full has no budget
    EXPECT_FALSE(board.lines[0].at[0]->interpolated);
    EXPECT_DOUBLE_EQ(board.lines[0].at[0]->estimate.value, std::exp(1.5));
    EXPECT_DOUBLE_EQ(board.lines[1].at[0]->estimate.value, std::exp(1.5));
    EXPECT_EQ(leaderboard(aggregate(results), "exact_match").lines[1].key.method, "random");
}

TEST(Leaderboard, TheOracleStandsLastWithoutARank) {
    Results results = by_hand();
    const CellKey oracle{.method = kOracle, .budget = 0.2}, worst{.method = "random", .budget = 0.2};
    for (const CellKey & key : {oracle, worst}) {
        results.header.grid.push_back(key);
        results.cells.push_back(cell(key, "a", key.method == kOracle ? 0.1 : 9.0, 1, 0));
    }
    const auto rows = aggregate(results);
    const Leaderboard board = leaderboard(rows, "ppl");
    ASSERT_EQ(board.lines.size(), 3U);
    EXPECT_EQ(board.lines[1].key.method, "random");
    EXPECT_EQ(board.lines[2].key.method, kOracle);
    EXPECT_NE(rows_as_text(rows).find(kOracleNote), std::string::npos);
    EXPECT_EQ(rows_as_text(aggregate(by_hand())).find(kOracleNote), std::string::npos);
}

TEST(Leaderboard, InterpolatesKeepsOnLogBytes) {
    Results results;
    for (const double keep : {0.4, 0.1}) {
        const CellKey key{.method = "prefixkv", .keep = keep};
        results.header.grid.push_back(key);
        results.cells.push_back(cell(key, "a", 1, 1, keep == 0.4 ? 1.0 : 0.5));
        results.cells.back().kv_bytes = static_cast<uint64_t>(200 * keep);
    }
    const Leaderboard board = leaderboard(aggregate(results), "exact_match");
    EXPECT_EQ(board.shares, (std::vector{0.2, 0.1}));  // 0.5 and 0.05 are outside of what was measured
    ASSERT_EQ(board.lines.size(), 1U);
    EXPECT_TRUE(board.lines[0].at[0]->interpolated);
    EXPECT_NEAR(board.lines[0].at[0]->estimate.value, 0.75, 1e-12);  // 0.2 is halfway between 0.1 and 0.4
    EXPECT_NEAR(board.lines[0].at[1]->estimate.value, 0.5, 1e-12);
}

}  // namespace
}  // namespace kvsieve
