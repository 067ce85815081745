// SPDX-License-Identifier: MIT
#include "policy/golden.h"

namespace kvsieve {
namespace {

using test::check_golden_entries;

TEST(AirCacheGolden, EliteScoresBudgetsAndPositions) {
    const int n = check_golden_entries("aircache", "aircache", {}, [](const auto & params) {
        return MethodOptions{
            .keep = params.at("keep"), .params = {{"alpha", params.at("alpha").dump()}}, .profile = {}};
    });
    EXPECT_EQ(n, 48);
}

}  // namespace
}  // namespace kvsieve
