// SPDX-License-Identifier: MIT
#include "io/plan_json.h"

#include <gtest/gtest.h>

namespace kvsieve {
namespace {

constexpr PromptShape kShape{.n_layer = 2, .n_tokens = 4};

TEST(PlanJson, NamesAndOrder) {
    Plan plan;
    plan.layers = {{{{0, 3}}}, {{{0, 1, 3}}}};
    plan.extra = {{"forget", std::vector<int32_t>{2, 1}}, {"iterations", int64_t{6}}, {"tolerance_met", true}};
    const auto json = plan_to_json("prefixkv", {.keep = 0.6}, kShape, plan,
                                   SimulatedDecode{5, {.removed = {{{2, 1}}, {}}, .final_len = {6, 8}}});
    EXPECT_EQ(json.dump(),
              R"({"method":"prefixkv","keep":0.6,"n_kv":4,"n_layer":2,"keeps_everything":false,"kept":[[0,3],[0,1,3]],)"
              R"("n_kept":[2,3],"forget":[2,1],"iterations":6,"tolerance_met":true,)"
              R"("decode":{"steps":5,"removed_step_and_position":[[[2,1]],[]],"final_len":[6,8]}})");
}

TEST(PlanJson, PerHeadPlansAreListsOfLists) {
    Plan plan;
    plan.layers = {{{{0}, {1, 2}}}, {{{0, 1}, {3}}}};
    const auto json = plan_to_json("adakv", {.keep = 0.5}, kShape, plan);
    EXPECT_EQ(json["kept"].dump(), "[[[0],[1,2]],[[0,1],[3]]]");
    EXPECT_EQ(json["n_kept"].dump(), "[[1,2],[2,1]]");
    EXPECT_FALSE(json.contains("decode"));
}

TEST(PlanJson, AProfileStandsInPlaceOfKeep) {
    MethodOptions options;
    options.profile = Profile{.forget = {0.5, 0.25}};
    Plan plan;
    plan.layers = {{{{0}}}, {{{0}}}};
    const auto json = plan_to_json("prefixkv", options, kShape, plan);
    EXPECT_TRUE(json["keep"].is_null());
    EXPECT_EQ(json["layer_ratios"].dump(), "[0.5,0.25]");
}

}  // namespace
}  // namespace kvsieve
