// SPDX-License-Identifier: MIT
// What holds for every method of the registry, on random prompts and degenerate ones.
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <limits>
#include <set>

#include "policy/fake_observation.h"
#include "policy/prompt.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::fake_prompt;
using test::FakePrompt;
using test::Pattern;

/// A method with one choice of parameters.
struct Variant {
    std::string method;
    std::map<std::string, std::string> params;
    bool profile = false;
};

/// Every method with its defaults, with every word that it takes, with the ends of every number, and with a profile.
std::vector<Variant> variants() {
    std::vector<Variant> out;
    for (const MethodInfo & info : methods()) {
        const std::string name(info.name);
        out.push_back({name, {}, false});
        if (info.takes_profile) {
            out.push_back({name, {}, true});
        }
        for (const ParamSpec & spec : info.params) {
            for (const std::string & word : spec.choices) {
                out.push_back({name, {{spec.name, word}}, false});
            }
            if (spec.choices.empty()) {
                out.push_back({name, {{spec.name, std::to_string(spec.min)}}, false});
                out.push_back({name, {{spec.name, std::to_string(spec.max)}}, false});
            }
        }
    }
    return out;
}

PromptShape random_shape(std::mt19937 & random) {
    const auto up_to = [&](uint32_t n) { return static_cast<int32_t>(random() % n) + 1; };
    PromptShape p;
    p.n_layer = up_to(5);
    p.n_head_kv = up_to(2);
    p.n_head = p.n_head_kv * up_to(2);
    p.head_dim = 4;
    p.n_tokens = up_to(40);
    switch (random() % 4) {
        case 0:
            break;  // text only
        case 1:
            p.visual_mask.assign(static_cast<size_t>(p.n_tokens), 1);
            break;  // an image only
        default:
            for (int32_t k = 0; k < p.n_tokens; ++k) {
                const bool text = k == 0 || (p.n_tokens > 4 && k > p.n_tokens - 4);
                p.visual_mask.push_back(text || random() % 8 == 0 ? 0 : 1);
            }
    }
    return p;
}

MethodOptions options_of(const Variant & variant, const MethodInfo & info, double keep, const PromptShape & shape,
                         std::mt19937 & random) {
    MethodOptions options{.keep = info.keep_of.empty() ? 1.0 : keep, .params = variant.params, .profile = {}};
    if (variant.profile) {
        options.keep = 1;
        options.profile.emplace();
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            options.profile->forget.push_back(static_cast<double>(random() % 1000) / 1000);
        }
    }
    return options;
}

void expect_well_formed(const Plan & plan, const PromptShape & shape, const Traits & traits) {
    ASSERT_EQ(plan.layers.size(), static_cast<size_t>(shape.n_layer));
    ASSERT_TRUE(plan.decode.empty() || (plan.decode.size() == plan.layers.size() && traits.evicts_while_decoding));
    bool everything = true;
    for (const LayerPlan & layer : plan.layers) {
        ASSERT_EQ(layer.kept.size(), traits.per_head ? static_cast<size_t>(shape.n_head_kv) : 1U);
        for (const auto & kept : layer.kept) {
            ASSERT_FALSE(kept.empty());
            ASSERT_GE(kept.front(), 0);
            ASSERT_LT(kept.back(), shape.n_tokens);
            ASSERT_TRUE(std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end());
            everything &= kept.size() == static_cast<size_t>(shape.n_tokens);
        }
    }
    EXPECT_EQ(plan.keeps_everything, everything);
    for (size_t il = 0; il < plan.decode.size(); ++il) {
        ASSERT_GE(plan.decode[il].drop_slot, 0);
        ASSERT_LT(plan.decode[il].drop_slot, static_cast<int32_t>(plan.layers[il].kept[0].size()));
    }
}

class EveryVariant : public testing::TestWithParam<Variant> {};

TEST_P(EveryVariant, PlansAreWellFormedAndRepeatable) {
    const Variant & variant = GetParam();
    const MethodInfo & info = method_info(variant.method);
    std::mt19937 random(7);
    int n_planned = 0;
    for (uint32_t seed = 0; n_planned < 300; ++seed) {
        ASSERT_LT(seed, 3000U) << "the method refuses nearly everything";
        const FakePrompt prompt = fake_prompt(random_shape(random), static_cast<Pattern>(seed % test::kPatterns), seed);
        const PromptShape & shape = prompt.shape;
        const double keep = seed % 10 == 0 ? 1.0 : static_cast<double>(random() % 999 + 1) / 1000;
        const auto options = options_of(variant, info, keep, shape, random);
        const auto method = make_method(variant.method, options);
        const Traits & traits = method->traits();
        try {
            method->check(shape);
        } catch (const Error & e) {
            // Nothing but the prompt's modality may be refused here.
            ASSERT_TRUE(traits.visual && positions_after_visual(shape).empty()) << e.what();
            continue;
        }
        ++n_planned;
        SCOPED_TRACE(variant.method + " seed " + std::to_string(seed) + " keep " + std::to_string(keep) + " T " +
                     std::to_string(shape.n_tokens));
        const auto scores = test::score_all(*method, prompt);
        const Plan plan = method->plan(shape, scores);
        ASSERT_NO_FATAL_FAILURE(expect_well_formed(plan, shape, traits));

        const auto again = make_method(variant.method, options);
        const Plan same = again->plan(shape, test::score_all(*again, prompt));
        ASSERT_EQ(plan.layers, same.layers);
        if (options.keep == 1 && !options.profile) {
            ASSERT_TRUE(plan.keeps_everything);
            ASSERT_TRUE(plan.decode.empty());
        }
        for (int32_t il = shape.n_layer - 1; traits.layerwise && il >= 0; --il) {
            const auto i = static_cast<size_t>(il);
            ASSERT_EQ(method->plan_layer(shape, il, scores[i]), plan.layers[i]);
        }
        const DecodeTrace trace = simulate_decode(plan, shape.n_tokens, 30);
        for (size_t il = 0; il < plan.layers.size(); ++il) {
            ASSERT_EQ(trace.final_len[il] + static_cast<int32_t>(trace.removed[il].size()),
                      static_cast<int32_t>(plan.layers[il].kept[0].size()) + 30);
        }
    }
}

std::string variant_name(const testing::TestParamInfo<Variant> & info) {
    std::string name = info.param.method + (info.param.profile ? "_profile" : "");
    for (const auto & [key, value] : info.param.params) {
        name += "_" + key + "_" + value;
    }
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryVariant, testing::ValuesIn(variants()), variant_name);

class EveryMethod : public testing::TestWithParam<std::string> {};

TEST_P(EveryMethod, RowIsComplete) {
    const MethodInfo & info = method_info(GetParam());
    EXPECT_FALSE(info.summary.empty());
    EXPECT_FALSE(info.section.empty());
    EXPECT_TRUE(info.keep_of.empty() || info.keep_of == "all rows" || info.keep_of == "visual rows");
    EXPECT_EQ(info.traits.visual, info.keep_of == "visual rows");
    for (const ParamSpec & spec : info.params) {
        EXPECT_FALSE(spec.help.empty()) << spec.name;
        EXPECT_EQ(std::holds_alternative<std::string>(spec.def), !spec.choices.empty()) << spec.name;
    }
}

TEST_P(EveryMethod, RefusesWhatItDoesNotTake) {
    const std::string name = GetParam();
    const MethodInfo & info = method_info(name);
    for (const double keep : {0.0, -0.5, 1.0000001, 2.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
        const std::string text = error_of([&] { (void)make_method(name, {.keep = keep}); });
        EXPECT_NE(text.find("keep is"), std::string::npos) << text;
        EXPECT_NE(text.find("(0, 1]"), std::string::npos) << text;
    }
    const std::string unknown = error_of([&] { (void)make_method(name, {.params = {{"no_such", "1"}}}); });
    EXPECT_NE(unknown.find("no_such"), std::string::npos);
    for (const ParamSpec & spec : info.params) {
        EXPECT_NE(unknown.find(spec.name), std::string::npos) << unknown;
        for (const std::string & bad :
             {std::string(), std::string("nan"), std::string("no such word"), std::to_string(spec.max + 1),
              std::to_string(spec.min - 1), std::string("0x1")}) {
            const std::string text = error_of([&] { (void)make_method(name, {.params = {{spec.name, bad}}}); });
            EXPECT_NE(text.find(spec.name), std::string::npos) << text;
            EXPECT_NE(text.find("expected"), std::string::npos) << text;
        }
    }
    if (!info.takes_profile) {
        MethodOptions options;
        options.profile = Profile{.forget = {0.5}, .model_fingerprint = "", .method = name};
        EXPECT_NE(error_of([&] { (void)make_method(name, options); }).find("takes no profile"), std::string::npos);
    }
}

TEST_P(EveryMethod, RefusesAMissingObservation) {
    const auto method = make_method(GetParam(), {});
    PromptShape shape{
        .n_layer = 1, .n_head = 2, .n_head_kv = 1, .head_dim = 4, .n_tokens = 6, .visual_mask = {0, 1, 1, 1, 0, 0}};
    class Empty final : public LayerObservation {
        void rows(std::span<const int32_t> /*positions*/, std::vector<float> & out) const override { out.clear(); }
    };
    const Traits & t = method->traits();
    const bool observes = t.importance || t.colsum || t.keys || t.values || t.rows != RowsWanted::none;
    if (observes) {
        const std::string text = error_of([&] { (void)method->score(shape, 0, Empty()); });
        EXPECT_NE(text.find("array"), std::string::npos) << text;
    } else {
        EXPECT_NO_THROW((void)method->score(shape, 0, Empty()));
    }
}

std::vector<std::string> method_names() {
    std::vector<std::string> out;
    for (const MethodInfo & info : methods()) {
        out.emplace_back(info.name);
    }
    return out;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryMethod, testing::ValuesIn(method_names()),
                         [](const auto & test) { return test.param; });

TEST(Registry, NamesAreUniqueAndUnknownOnesAreRefusedWithTheList) {
    const std::vector<std::string> names = method_names();
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
    const std::string text = error_of([] { (void)make_method("prefixvk", {}); });
    EXPECT_NE(text.find("'prefixvk'"), std::string::npos) << text;
    for (const std::string & name : names) {
        EXPECT_NE(text.find(name), std::string::npos) << text;
    }
}

}  // namespace
}  // namespace kvsieve
