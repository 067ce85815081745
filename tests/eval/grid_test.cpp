// SPDX-License-Identifier: MIT
#include "eval/grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "kvsieve/policy.h"
#include "support/expect_error.h"

namespace kvsieve {
namespace {

void refuses(const GridText & text, const std::string & part) {
    test::expect_error(ErrorCode::invalid_argument, part, [&] { static_cast<void>(parse_grid(text)); });
}

TEST(Grid, OrderIsMethodKeepBudgetType) {
    const auto grid = parse_grid({"full,prefixkv", "0.5,0.2", "0.1", "f16,q8_0"});
    ASSERT_EQ(grid.size(), 2u + 3u * 2u);
    EXPECT_EQ(grid[0], (CellKey{.method = "full", .keep = 1.0, .kv_type = "f16"}));
    EXPECT_EQ(grid[1], (CellKey{.method = "full", .keep = 1.0, .kv_type = "q8_0"}));
    EXPECT_EQ(grid[2], (CellKey{.method = "prefixkv", .keep = 0.5, .kv_type = "f16"}));
    EXPECT_EQ(grid[5], (CellKey{.method = "prefixkv", .keep = 0.2, .kv_type = "q8_0"}));
    EXPECT_EQ(grid[6], (CellKey{.method = "prefixkv", .budget = 0.1, .kv_type = "f16"}));
    EXPECT_EQ(grid[7], (CellKey{.method = "prefixkv", .budget = 0.1, .kv_type = "q8_0"}));
}

TEST(Grid, ParametersBelongToTheKey) {
    const auto grid = parse_grid({"aircache,aircache:alpha=0.8:queries=last", "", "0.2", "q4_0"});
    ASSERT_EQ(grid.size(), 2u);
    EXPECT_TRUE(grid[0].params.empty());
    EXPECT_EQ(grid[1].params, (std::map<std::string, std::string>{{"alpha", "0.8"}, {"queries", "last"}}));
    EXPECT_EQ(grid[1].budget, 0.2);
    EXPECT_FALSE(grid[1].keep);
}

TEST(Grid, EveryMethodOfTheRegistryHasCells) {
    for (const MethodInfo & info : methods()) {
        EXPECT_EQ(parse_grid({info.name, "0.5", "0.2", "f16"}).size(), info.keep_of.empty() ? 1u : 2u) << info.name;
    }
}

TEST(Grid, TheOracleIsNoMethodAndTakesTheParametersOfSieve) {
    const auto types = parse_grid({"full,sieve,prefixkv", "", "0.2", "f16,auto"});  // auto: sieve only
    ASSERT_EQ(types.size(), 4U);
    EXPECT_EQ(types[2].method, "sieve");
    EXPECT_EQ(types[2].kv_type, "auto");
    EXPECT_EQ(method_options(types[2]).params.at("precision"), "auto");
    EXPECT_EQ(cell_rows("auto").type, "f16");
    const auto grid = parse_grid({"full,oracle:spread=0:safe=0.3", "0.5", "0.2", "f16,q4_0"});
    ASSERT_EQ(grid.size(), 2U + 2U * 2U);
    EXPECT_EQ(grid[2].method, kOracle);
    EXPECT_EQ(registered_method(grid[2]), "sieve");
    EXPECT_EQ(method_options(grid[2]).params, (std::map<std::string, std::string>{{"safe", "0.3"}, {"spread", "0"}}));
    const auto oracles = [](const char * names) {
        return std::ranges::count(parse_grid({names, "0.5", "", "f16"}), std::string(kOracle), &CellKey::method);
    };
    EXPECT_EQ(oracles("all"), 0);
    EXPECT_EQ(oracles("all,oracle"), 1);
}

TEST(Grid, RefusesWithOneSentence) {
    refuses({"prefixkv", "", "", "f16"}, "method prefixkv needs --keep or --budget");
    refuses({"nomethod", "0.5", "", "f16"}, "nomethod");
    refuses({"", "0.5", "", "f16"}, "--methods has an empty entry");
    refuses({"prefixkv,", "0.5", "", "f16"}, "--methods has an empty entry");
    refuses({"prefixkv,prefixkv", "0.5", "", "f16"}, "--methods names prefixkv twice");
    refuses({"aircache:alpha=0.8:queries=last,aircache:queries=last:alpha=0.8", "0.5", "", "f16"}, "twice");
    refuses({"prefixkv", "0.5,0.50", "", "f16"}, "--keep names 0.5 twice");
    refuses({"prefixkv", "0", "", "f16"}, "--keep takes numbers in (0, 1], got 0");
    refuses({"prefixkv", "half", "", "f16"}, "got half");
    refuses({"prefixkv", "", "1.5", "f16"}, "--budget takes numbers in (0, 1], got 1.5");
    refuses({"prefixkv", "0.5", "", "q5_0"}, "-unrotated behind them, and auto, got q5_0");
    refuses({"prefixkv", "0.5", "", "f16-unrotated"}, "got f16-unrotated");
    refuses({"aircache:alpha", "0.5", "", "f16"}, "expected NAME=VALUE");
    refuses({"aircache:=1", "0.5", "", "f16"}, "expected NAME=VALUE");
    refuses({"aircache:alpha=0.8:alpha=0.9", "0.5", "", "f16"}, "sets alpha twice");
    refuses({"aircache:nothing=1", "0.5", "", "f16"}, "nothing");
    refuses({"aircache:alpha=x", "", "0.2", "f16"}, "alpha");
    refuses({"oracle:nothing=1", "0.5", "", "f16"}, "nothing");
    refuses({"oracle:safe=2", "0.5", "", "f16"}, "safe");
    refuses({"oracle", "", "", "f16"}, "method oracle needs --keep or --budget");
    refuses({"all,random", "0.5", "", "f16"}, "--methods names random twice");
}

TEST(Grid, Metrics) {
    EXPECT_EQ(parse_metrics("anls,ppl"), (std::vector<std::string>{"anls", "ppl"}));
    EXPECT_EQ(parse_metrics("ppl,rouge_l,exact_match,anls,relaxed_accuracy,exact_match_next").size(), 6u);
    for (const auto & [text, part] : {std::pair{"bleu", "the metric bleu is not known"},
                                      {"", "--metrics has an empty entry"},
                                      {"ppl,ppl", "--metrics names ppl twice"}}) {
        test::expect_error(ErrorCode::invalid_argument, part, [&] { static_cast<void>(parse_metrics(text)); });
    }
}

}  // namespace
}  // namespace kvsieve
