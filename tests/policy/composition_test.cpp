// SPDX-License-Identifier: MIT
// Scorers under allocators that were not published together.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "policy/fake_observation.h"
#include "policy/generated_prompt.h"

namespace kvsieve {
namespace {

using test::error_of;

std::vector<LayerScore> scores_of(const Method & method, const PromptShape & shape, uint64_t seed) {
    std::vector<LayerScore> out;
    for (int32_t il = 0; il < shape.n_layer; ++il) {
        const test::GeneratedLayer layer(shape, method.traits(), test::Numbers::spread,
                                         seed + static_cast<uint64_t>(il));
        out.push_back(method.score(shape, il, layer));
    }
    return out;
}

/// 8 text tokens, 200 visual ones, 12 text tokens.
PromptShape shape_with_image() {
    PromptShape p{.n_layer = 4, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 220};
    p.visual_mask.assign(220, 0);
    std::fill_n(p.visual_mask.begin() + 8, 200, uint8_t{1});
    p.rope.freqs = {1.0F, 0.1F};
    return p;
}

int64_t rows_of(const Plan & plan) {
    int64_t n = 0;
    for (const LayerPlan & layer : plan.layers) {
        for (const auto & kept : layer.kept) {
            n += static_cast<int64_t>(kept.size()) * (plan.per_head ? 1 : 2);
        }
    }
    return n;
}

TEST(Composition, EveryPairPlansOrSaysWhyNot) {
    const PromptShape shape = shape_with_image();
    int n_made = 0, n_refused = 0;
    for (const PartInfo & scorer : scorers()) {
        EXPECT_FALSE(scorer.summary.empty());
        for (const PartInfo & allocator : allocators()) {
            EXPECT_FALSE(allocator.summary.empty());
            const std::string pair = std::string(scorer.name) + "+" + std::string(allocator.name);
            SCOPED_TRACE(pair);
            try {
                EXPECT_EQ(composition_name(scorer.name, allocator.name), pair);
            } catch (const Error & e) {
                const std::string text = e.what();
                EXPECT_TRUE(text.find("makes no sense: ") != std::string::npos ||
                            text.find("expected parts that observe the same rows") != std::string::npos)
                    << text;
                ++n_refused;
                continue;
            }
            ++n_made;
            const auto method = make_method(pair, {.keep = 0.5});
            method->check(shape);
            const auto scores = scores_of(*method, shape, 3);
            const Plan plan = method->plan(shape, scores);
            EXPECT_EQ(method->count_rows(shape, scores), rows_of(plan));
            // Half of 220 rows or of 200 visual ones in 4 layers of 2 KV heads; windows, clips and rounding move it.
            EXPECT_GT(rows_of(plan), 4 * 2 * 90);
            EXPECT_LT(rows_of(plan), 4 * 2 * 140);
            const auto everything = make_method(pair, {.keep = 1});
            EXPECT_TRUE(everything->plan(shape, scores_of(*everything, shape, 3)).keeps_everything);
        }
    }
    EXPECT_GT(n_made, 80);
    EXPECT_GE(n_refused, 25);
}

TEST(Composition, PublishedPairsAreThePublishedMethods) {
    const PromptShape shape = shape_with_image();
    for (const auto & [pair, name] : std::map<std::string, std::string>{{"snapkv+uniform", "snapkv"},
                                                                        {"snapkv+pyramidkv", "pyramidkv"},
                                                                        {"snapkv+adakv", "adakv"},
                                                                        {"importance+prefixkv", "prefixkv"},
                                                                        {"importance+uniform_prefix", "uniform_prefix"},
                                                                        {"aircache+aircache", "aircache"},
                                                                        {"cake+cake", "cake"},
                                                                        {"lava+lava", "lava"},
                                                                        {"vl_cache+vl_cache", "vl_cache"}}) {
        const auto composed = make_method(pair, {.keep = 0.4});
        const auto published = make_method(name, {.keep = 0.4});
        EXPECT_EQ(composed->plan(shape, scores_of(*composed, shape, 8)).layers,
                  published->plan(shape, scores_of(*published, shape, 8)).layers)
            << pair;
    }
}

TEST(Composition, RefusalsNameBothPartsAndTheReason) {
    const std::string mass = error_of([] { (void)composition_name("knorm", "prefixkv"); });
    EXPECT_NE(mass.find("scorer knorm with allocator prefixkv makes no sense"), std::string::npos) << mass;
    const std::string heads = error_of([] { (void)make_method("tova+adakv", {.keep = 0.5}); });
    EXPECT_NE(heads.find("KV heads"), std::string::npos) << heads;
    const std::string rows = error_of([] { (void)method_info("snapkv+vl_cache"); });
    EXPECT_NE(rows.find("snapkv+vl_cache"), std::string::npos) << rows;
    EXPECT_NE(error_of([] { (void)composition_name("nobody", "uniform"); }).find("expected one of recent, random"),
              std::string::npos);
    EXPECT_NE(error_of([] { (void)composition_name("snapkv", "nobody"); }).find("there is no allocator 'nobody'"),
              std::string::npos);
    const std::string scope = error_of([] {
        (void)make_method("aircache+uniform", {.keep = 0.5, .params = {{"scope", "all"}}});
    });
    EXPECT_NE(scope.find("expected one of visual"), std::string::npos) << scope;
}

TEST(Composition, ScopeVisualKeepsAllTextAndCountsVisualRows) {
    const PromptShape shape = shape_with_image();
    const auto method = make_method("knorm+uniform", {.keep = 0.25, .params = {{"scope", "visual"}}});
    EXPECT_TRUE(method->traits().visual);
    for (const LayerPlan & layer : method->plan(shape, scores_of(*method, shape, 2)).layers) {
        ASSERT_EQ(layer.kept.size(), 2U);  // one set per KV head, as published for knorm
        for (const auto & kept : layer.kept) {
            EXPECT_EQ(kept.size(), 20U + 50U);
            EXPECT_EQ(std::count_if(kept.begin(), kept.end(), [](int32_t k) { return k < 8 || k >= 208; }), 20);
        }
    }
    PromptShape text = shape;
    text.visual_mask.clear();
    EXPECT_NE(error_of([&] { method->check(text); }).find("needs visual tokens"), std::string::npos);
}

TEST(Composition, GranularityLayerTakesTheMeanOverHeads) {
    const PromptShape shape = shape_with_image();
    const auto heads = make_method("knorm+uniform", {.keep = 0.5});
    const auto layer = make_method("knorm+uniform", {.keep = 0.5, .params = {{"granularity", "layer"}}});
    EXPECT_TRUE(heads->traits().per_head);
    EXPECT_FALSE(layer->traits().per_head);
    const auto per_head = scores_of(*heads, shape, 5), mean = scores_of(*layer, shape, 5);
    ASSERT_EQ(mean[0].score.size(), 220U);
    for (size_t k = 0; k < 220; ++k) {
        EXPECT_DOUBLE_EQ(mean[0].score[k], (per_head[0].score[k] + per_head[0].score[220 + k]) / 2);
    }
    const std::string text = error_of([] {
        (void)make_method("snapkv+prefixkv", {.keep = 0.5, .params = {{"granularity", "head"}}});
    });
    EXPECT_NE(text.find("granularity"), std::string::npos) << text;
}

TEST(Composition, ThePrefixSearchLeavesAProtectedWindowOutOfItsShares) {
    // One layer holds its mass in few tokens, the other is flat; SnapKV's window stays in both.
    const PromptShape shape{.n_layer = 2, .n_head = 1, .n_head_kv = 1, .n_tokens = 100};
    std::vector<double> flat(100, 0.01), peaked(100, 1e-6);
    peaked[10] = peaked[20] = 0.4;
    for (std::vector<double> * layer : {&flat, &peaked}) {
        std::fill(layer->end() - 8, layer->end(), 1.4);
    }
    const auto method = make_method("snapkv+prefixkv", {.keep = 0.5, .params = {{"window", "8"}}});
    const Plan plan = method->plan(shape, std::vector<LayerScore>{{.score = flat}, {.score = peaked}});
    EXPECT_GT(plan.layers[0].kept[0].size(), 2 * plan.layers[1].kept[0].size());
    for (const LayerPlan & layer : plan.layers) {
        for (int32_t k = 92; k < 100; ++k) {
            EXPECT_TRUE(std::binary_search(layer.kept[0].begin(), layer.kept[0].end(), k)) << k;
        }
    }
    EXPECT_TRUE(std::binary_search(plan.layers[1].kept[0].begin(), plan.layers[1].kept[0].end(), 10));
}

TEST(Composition, ACompositionIsAMethodByName) {
    const MethodInfo & info = method_info("expected_attention+aircache");
    EXPECT_EQ(info.name, "expected_attention+aircache");
    EXPECT_EQ(&info, &method_info("expected_attention+aircache"));
    std::vector<std::string> names;
    for (const ParamSpec & spec : info.params) {
        names.push_back(spec.name);
    }
    for (const std::string name : {"n_future", "weights", "granularity", "scope"}) {
        EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
    }
    const MethodInfo & cake = method_info("snapkv+cake");  // both have a window: one parameter, the scorer's default
    EXPECT_EQ(std::count_if(cake.params.begin(), cake.params.end(), [](const auto & p) { return p.name == "window"; }),
              1);
}

TEST(Fit, FindsTheLargestKeepUnderACap) {
    const PromptShape shape = shape_with_image();
    for (const MethodInfo & info : methods()) {
        SCOPED_TRACE(info.name);
        const auto method = make_method(info.name, {});
        const auto scores = scores_of(*method, shape, 4);
        for (const int64_t cap : {4 * 2 * 220, 4 * 2 * 150, 4 * 2 * 131}) {
            if (info.keep_of.empty() && cap < 4 * 2 * 220) {
                EXPECT_NE(error_of([&] { (void)fit_rows(info.name, {}, shape, scores, cap); }).find("smallest plan"),
                          std::string::npos);
                continue;
            }
            const RowFit fit = fit_rows(info.name, {.keep = 0.01}, shape, scores, cap);
            EXPECT_LE(fit.n_rows, cap);
            EXPECT_EQ(fit.n_rows, rows_of(fit.plan));
            EXPECT_EQ(make_method(info.name, fit.options)->plan(shape, scores).layers, fit.plan.layers);
            if (fit.options.keep < 1) {  // a little more does not fit
                MethodOptions more = fit.options;
                more.keep = std::min(1.0, fit.options.keep + 2e-9);
                EXPECT_GT(make_method(info.name, more)->count_rows(shape, scores), cap);
            }
            const Traits & traits = method->traits();
            if (traits.layerwise || traits.prune_layer > 0) {  // known before the prefill
                const RowFit before = fit_rows(info.name, {}, shape, {}, cap);
                EXPECT_EQ(before.options.keep, fit.options.keep);
                EXPECT_EQ(before.n_rows, fit.n_rows);
                EXPECT_TRUE(before.plan.layers.empty());
            }
        }
    }
}

TEST(Fit, SaysWhatTheSmallestPlanTakes) {
    const PromptShape shape = shape_with_image();
    const auto method = make_method("aircache", {});
    const auto scores = scores_of(*method, shape, 4);
    const std::string text = error_of([&] { (void)fit_rows("aircache", {}, shape, scores, 4 * 2 * 19); });
    EXPECT_NE(text.find("its smallest plan has 160 rows"), std::string::npos) << text;  // 20 text tokens
    EXPECT_NE(error_of([&] { (void)fit_rows("aircache", {}, shape, {}, 1000); }).find("scores"), std::string::npos);
    MethodOptions profile;
    profile.profile = Profile{.forget = {0.5, 0.5, 0.5, 0.5}};
    EXPECT_NE(error_of([&] { (void)fit_rows("prefixkv", profile, shape, {}, 100); }).find("880 rows"),
              std::string::npos);
    EXPECT_EQ(fit_rows("prefixkv", profile, shape, {}, 880).n_rows, 880);
}

}  // namespace
}  // namespace kvsieve
