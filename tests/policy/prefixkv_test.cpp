// SPDX-License-Identifier: MIT
#include "policy/golden.h"

namespace kvsieve {
namespace {

using test::check_golden_entries;

TEST(PrefixKvGolden, OnlineSearchAndDecoding) {
    const int n = check_golden_entries("prefixkv", "prefixkv", {"threshold", "iterations"}, [](const auto & params) {
        return MethodOptions{.keep = params.at("keep"), .params = {}, .profile = {}};
    });
    EXPECT_EQ(n, 130);
}

TEST(PrefixKvGolden, OfflineProfileAndDecoding) {
    const int n = check_golden_entries("prefixkv_offline", "prefixkv", {}, [](const auto & params) {
        MethodOptions options;
        options.profile = Profile{.forget = params.at("layer_ratios"), .model_fingerprint = ""};
        return options;
    });
    EXPECT_EQ(n, 39);
}

}  // namespace
}  // namespace kvsieve
