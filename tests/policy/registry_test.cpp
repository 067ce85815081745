// SPDX-License-Identifier: MIT
// What holds for every method of the registry, on random prompts and degenerate ones.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <set>

#include "policy/budget.h"
#include "policy/fake_observation.h"
#include "policy/generated_prompt.h"
#include "policy/number.h"
#include "policy/prompt.h"

namespace kvsieve {
namespace {

using test::error_of;

/// A method, its options and a prompt.
struct Case {
    PromptShape shape;
    MethodOptions options;
    test::Numbers numbers = test::Numbers::spread;
    uint64_t seed = 0;
};

/// A parameter as a caller might type it: an end of its range, a word, a number that is not far from 1.
std::string generated_value(const ParamSpec & spec, std::mt19937 & random) {
    if (!spec.choices.empty()) {
        return spec.choices[random() % spec.choices.size()];
    }
    const double least = spec.min, most = std::min(spec.max, std::max(64.0, spec.min));
    double value = random() % 3 == 0 ? least : random() % 2 == 0 ? most : least + (most - least) * (random() % 64) / 64;
    if (spec.integer) {
        value = random() % 2 == 0 ? std::floor(value) : std::min(spec.max, std::max(least, 1.0 * (random() % 9)));
    }
    if (spec.odd) {
        value = std::floor(value / 2) * 2 + 1;
    }
    return number_text(value);
}

Case generated_case(const MethodInfo & info, uint32_t seed, int64_t max_size) {
    std::mt19937 random(seed * 2654435761U + 17U);
    Case out{.shape = test::generated_shape(random, max_size), .options = {}};
    out.numbers = static_cast<test::Numbers>(random() % test::kNumbers);
    out.seed = seed;
    out.options.seed = seed;
    if (!info.keep_of.empty() && random() % 10 != 0) {
        out.options.keep = std::exp(-5.0 * static_cast<double>(random() % 1000) / 1000);
    }
    for (const ParamSpec & spec : info.params) {
        if (random() % 2 == 0) {
            out.options.params[spec.name] = generated_value(spec, random);
        }
    }
    if (info.takes_profile && random() % 3 == 0) {
        out.options.keep = 1;
        out.options.profile = Profile{.forget = {}, .model_fingerprint = {}, .method = std::string(info.name)};
        for (int32_t il = 0; il < out.shape.n_layer; ++il) {
            out.options.profile->forget.push_back(static_cast<double>(random() % 1000) / 1000);
        }
    }
    return out;
}

std::vector<LayerScore> scores_of(const Method & method, const Case & c) {
    std::vector<LayerScore> out;
    for (int32_t il = 0; il < c.shape.n_layer; ++il) {
        const test::GeneratedLayer layer(c.shape, method.traits(), c.numbers, c.seed * 64 + static_cast<uint64_t>(il));
        out.push_back(method.score(c.shape, il, layer));
    }
    return out;
}

double param_of(const MethodInfo & info, const MethodOptions & options, const std::string & name) {
    if (const auto given = options.params.find(name); given != options.params.end()) {
        return *parse_number(given->second);
    }
    for (const ParamSpec & spec : info.params) {
        if (spec.name == name) {
            return std::get<double>(spec.def);
        }
    }
    return 0;
}

/// Whether a method may refuse the prompt: no text behind an image where it needs that, or a prompt not longer than the
/// window or the sinks.
bool may_refuse(const MethodInfo & info, const Traits & traits, const Case & c) {
    const double shortest = std::max(param_of(info, c.options, "window"), traits.query_stats ? traits.n_sink : 0.0);
    return c.shape.n_tokens <= shortest ||
           ((traits.visual || traits.rows == RowsWanted::text_after_visual) &&
            positions_after_visual(c.shape).empty()) ||
           (traits.visual && visual_positions(c.shape).empty());
}

void expect_well_formed(const Plan & plan, const PromptShape & shape, const Traits & traits) {
    ASSERT_EQ(plan.layers.size(), static_cast<size_t>(shape.n_layer));
    ASSERT_TRUE(plan.decode.empty() || (plan.decode.size() == plan.layers.size() && traits.evicts_while_decoding));
    ASSERT_EQ(plan.per_head, traits.per_head);
    bool everything = true;
    for (const LayerPlan & layer : plan.layers) {
        ASSERT_EQ(layer.kept.size(), traits.per_head ? static_cast<size_t>(shape.n_head_kv) : 1U);
        ASSERT_TRUE(layer.merged.empty() || traits.merges);
        for (const auto & kept : layer.kept) {
            ASSERT_TRUE(kept.empty() || (kept.front() >= 0 && kept.back() < shape.n_tokens));
            ASSERT_TRUE(std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end());
            everything &= kept.size() == static_cast<size_t>(shape.n_tokens);
        }
        ASSERT_TRUE(layer.types.empty() || (traits.row_types && layer.types.size() == layer.kept.size()));
        everything &= layer.types.empty();
        for (const Merge & merge : layer.merged) {
            ASSERT_FALSE(std::binary_search(layer.kept[0].begin(), layer.kept[0].end(), merge.from));
            ASSERT_TRUE(std::binary_search(layer.kept[0].begin(), layer.kept[0].end(), merge.into));
        }
    }
    EXPECT_EQ(plan.keeps_everything, everything);
    for (size_t il = 0; il < plan.decode.size(); ++il) {
        ASSERT_GE(plan.decode[il].drop_slot, 0);
        ASSERT_LT(plan.decode[il].drop_slot, static_cast<int32_t>(plan.layers[il].kept[0].size()));
    }
    for (const auto & [name, value] : plan.extra) {
        if (const auto * list = std::get_if<std::vector<double>>(&value)) {
            for (const double x : *list) {
                ASSERT_TRUE(std::isfinite(x)) << name;
            }
        }
    }
}

/// Rows that the method promises for every list, where it promises a number; nothing where layers or heads differ.
std::optional<int64_t> promised_rows(const MethodInfo & info, const Case & c, size_t il) {
    const int64_t n_tokens = c.shape.n_tokens;
    const std::string name(info.name);
    const int64_t n = rows_of_keep(n_tokens, c.options.keep);
    // Whoever plans layer by layer keeps n(T) rows in every list, but for these.
    const bool uniform = info.traits.layerwise && !info.traits.evicts_while_decoding && !info.traits.modality &&
                         !std::set<std::string>{"random", "pyramidkv", "adakv"}.contains(name);
    if (name == "full" || (c.options.keep == 1 && !c.options.profile)) {
        return n_tokens;
    }
    if (uniform) {
        return static_cast<double>(il) < param_of(info, c.options, "skip_layers") ? n_tokens : n;
    }
    const int64_t n_ends = std::min<int64_t>(2, n_tokens);
    const auto t = static_cast<double>(n_tokens);
    if (name == "random") {
        return std::max(n, n_ends);
    }
    if (name == "uniform_prefix") {
        return std::max(n_tokens - trunc_guarded(t * (1 - c.options.keep)), n_ends);
    }
    if (name == "elastic_cache") {
        return std::max(n_tokens - trunc_guarded(t - t * c.options.keep), n_ends);
    }
    if (name == "fastv") {
        const auto n_visual = static_cast<int64_t>(visual_positions(c.shape).size());
        const bool whole = static_cast<double>(il) < param_of(info, c.options, "prune_layer");
        return whole ? n_tokens : n_tokens - n_visual + rows_of_keep(n_visual, c.options.keep);
    }
    return std::nullopt;
}

/// Totals that the method promises over a layer's heads or over all layers.
void expect_promised_totals(const MethodInfo & info, const Case & c, const Plan & plan) {
    const int64_t n_kept = rows_of_keep(c.shape.n_tokens, c.options.keep);
    int64_t total = 0;
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        int64_t layer_total = 0;
        for (const auto & kept : plan.layers[il].kept) {
            if (const auto promised = promised_rows(info, c, il)) {
                ASSERT_EQ(static_cast<int64_t>(kept.size()), *promised) << "layer " << il;
            }
            layer_total += static_cast<int64_t>(kept.size());
        }
        if (info.name == "adakv") {
            ASSERT_EQ(layer_total, n_kept * c.shape.n_head_kv);
        }
        total += layer_total / static_cast<int64_t>(plan.layers[il].kept.size());
    }
    const auto precision = c.options.params.find("precision");
    if (precision != c.options.params.end() && precision->second == "auto") {
        const int64_t n_list = plan.per_head ? c.shape.n_head_kv : 1;
        const int64_t budget = n_kept * n_list * c.shape.n_layer;
        const int64_t cost = plan_cost(c.shape, plan) * n_list / c.shape.n_head_kv;
        ASSERT_LE(cost, c.options.keep == 1 ? n_list * c.shape.n_tokens * c.shape.n_layer : budget);
        const bool whole = std::ranges::all_of(plan.layers, [&](const LayerPlan & layer) {
            return std::ranges::all_of(
                layer.kept, [&](const auto & kept) { return kept.size() == static_cast<size_t>(c.shape.n_tokens); });
        });
        ASSERT_TRUE(whole || cost >= budget - 1) << cost << " of " << budget;
    } else if (info.name == "sieve" && !c.options.profile) {
        int64_t n_rows = 0, n_list = 0;
        for (const LayerPlan & layer : plan.layers) {
            for (const auto & kept : layer.kept) {
                n_rows += static_cast<int64_t>(kept.size());
                ++n_list;
            }
        }
        ASSERT_EQ(n_rows, n_kept * n_list);
    }
    if (info.name == "cake") {
        ASSERT_EQ(total, n_kept * c.shape.n_layer);
    }
    if (info.name == "aircache") {
        const auto n_visual = static_cast<double>(visual_positions(c.shape).size());
        const auto n_text = static_cast<int64_t>(c.shape.n_tokens) - static_cast<int64_t>(n_visual);
        ASSERT_EQ(total - n_text * c.shape.n_layer,
                  static_cast<int64_t>(std::floor(c.options.keep * c.shape.n_layer * n_visual + 0.5)));
    }
}

/// Tokens that stay whatever the scores: ends, windows, sinks, text.
void expect_protected(const MethodInfo & info, const Case & c, const Plan & plan) {
    const std::string name(info.name);
    const auto n_tokens = static_cast<size_t>(c.shape.n_tokens);
    const auto n_kept = static_cast<size_t>(rows_of_keep(c.shape.n_tokens, c.options.keep));
    size_t first = 0, last = 0;
    if (std::set<std::string>{"random", "elastic_cache", "uniform_prefix", "prefixkv"}.contains(name)) {
        first = last = 1;
    } else if (std::set<std::string>{"snapkv", "pyramidkv", "mixkv", "cake", "lava"}.contains(name)) {
        // A budget below the window keeps the last rows of it; a pyramid is above it or the same in all layers.
        last = std::min(static_cast<size_t>(param_of(info, c.options, "window")), n_kept);
    } else if (name == "streaming_llm" || name == "expected_attention") {
        first = std::min(static_cast<size_t>(param_of(info, c.options, "n_sink")), n_kept);
        first = name == "expected_attention" && first == n_kept ? 0 : first;  // of too few rows the last sinks stay
    } else if (name == "tova") {
        last = std::min<size_t>(1, n_kept);
    } else if (name == "vl_cache") {
        last = 1;
    }
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        for (const auto & kept : plan.layers[il].kept) {
            const auto stays = [&](size_t k) {
                return std::binary_search(kept.begin(), kept.end(), static_cast<int32_t>(k));
            };
            for (size_t k = 0; k < std::min(first, n_tokens); ++k) {
                ASSERT_TRUE(stays(k)) << k;
            }
            for (size_t k = n_tokens - std::min(last, n_tokens); k < n_tokens; ++k) {
                ASSERT_TRUE(stays(k)) << k;
            }
            for (size_t k = 0; info.keep_of == "visual rows" && k < n_tokens; ++k) {
                ASSERT_TRUE(stays(k) || (!c.shape.visual_mask.empty() && c.shape.visual_mask[k] != 0)) << k;
            }
        }
    }
}

/// A larger keep keeps at least the same rows, where budgets are n(T) in every layer.
void expect_nested(const MethodInfo & info, const Case & c, const std::vector<LayerScore> & scores, const Plan & plan) {
    if (!promised_rows(info, c, 0) || info.keep_of.empty() || c.options.profile) {
        return;
    }
    MethodOptions more = c.options;
    more.keep = std::min(1.0, c.options.keep * 1.3);
    const Plan larger = make_method(info.name, more)->plan(c.shape, scores);
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        for (size_t g = 0; g < plan.layers[il].kept.size(); ++g) {
            const auto & some = plan.layers[il].kept[g];
            const auto & all = larger.layers[il].kept[g];
            ASSERT_TRUE(std::includes(all.begin(), all.end(), some.begin(), some.end()));
        }
    }
}

void expect_properties(const MethodInfo & info, const Case & c, const Method & method) {
    const Traits & traits = method.traits();
    const auto scores = scores_of(method, c);
    const Plan plan = method.plan(c.shape, scores);
    ASSERT_NO_FATAL_FAILURE(expect_well_formed(plan, c.shape, traits));
    ASSERT_NO_FATAL_FAILURE(expect_promised_totals(info, c, plan));
    ASSERT_NO_FATAL_FAILURE(expect_protected(info, c, plan));
    ASSERT_NO_FATAL_FAILURE(expect_nested(info, c, scores, plan));
    if (c.options.keep == 1 && !c.options.profile) {
        ASSERT_TRUE(plan.keeps_everything);
        ASSERT_TRUE(plan.decode.empty());
    }

    MethodOptions threaded = c.options;
    threaded.n_threads = 3;
    const auto again = make_method(info.name, threaded);
    const Plan same = again->plan(c.shape, scores_of(*again, c));
    ASSERT_EQ(plan.layers, same.layers);
    ASSERT_EQ(plan.extra, same.extra);

    ASSERT_EQ(method.count_rows(c.shape, scores), plan_cost(c.shape, plan));
    for (int32_t il = c.shape.n_layer - 1; il >= 0; --il) {
        const auto i = static_cast<size_t>(il);
        const auto scored = traits.prune_layer > 0 ? static_cast<size_t>(traits.prune_layer) - 1 : i;
        if (traits.layerwise || (traits.prune_layer > 0 && scored < scores.size())) {
            ASSERT_EQ(method.plan_layer(c.shape, il, scores[scored]), plan.layers[i]);
        }
    }
    const DecodeTrace trace = simulate_decode(plan, c.shape.n_tokens, 30);
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        ASSERT_EQ(trace.final_len[il] + static_cast<int32_t>(trace.removed[il].size()),
                  static_cast<int32_t>(plan.layers[il].kept[0].size()) + 30);
    }
}

void check_cases(std::string_view name, int n_cases, int64_t max_size) {
    const MethodInfo & info = method_info(name);
    int n_planned = 0;
    for (uint32_t seed = 0; n_planned < n_cases; ++seed) {
        ASSERT_LT(static_cast<int>(seed), 10 * n_cases) << "the method refuses nearly everything";
        // One prompt in 50 may be as long as they come.
        const Case c = generated_case(info, seed, seed % 50 == 0 ? std::max<int64_t>(max_size, 65'536) : max_size);
        const auto method = make_method(name, c.options);
        SCOPED_TRACE(std::string(name) + " seed " + std::to_string(seed) + " keep " + number_text(c.options.keep) +
                     " L " + std::to_string(c.shape.n_layer) + " H " + std::to_string(c.shape.n_head) + " G " +
                     std::to_string(c.shape.n_head_kv) + " T " + std::to_string(c.shape.n_tokens) + " numbers " +
                     std::to_string(static_cast<int>(c.numbers)));
        try {
            method->check(c.shape);
        } catch (const Error & e) {
            ASSERT_TRUE(may_refuse(info, method->traits(), c)) << e.what();
            continue;
        }
        ++n_planned;
        ASSERT_NO_FATAL_FAILURE(expect_properties(info, c, *method));
    }
}

class EveryMethod : public testing::TestWithParam<std::string> {};

TEST_P(EveryMethod, KeepsItsPromisesOnGeneratedPrompts) {
    check_cases(GetParam(), 300, 6'000);
}

/// The long run: --gtest_also_run_disabled_tests --gtest_filter='*LongRun*'
TEST_P(EveryMethod, DISABLED_LongRun) {
    check_cases(GetParam(), 10'000, 200'000);
}

TEST_P(EveryMethod, RowIsComplete) {
    const MethodInfo & info = method_info(GetParam());
    EXPECT_FALSE(info.summary.empty());
    EXPECT_FALSE(info.section.empty());
    EXPECT_TRUE(info.keep_of.empty() || info.keep_of == "all rows" || info.keep_of == "visual rows");
    EXPECT_TRUE(info.traits.modality || info.keep_of != "visual rows");
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
              std::to_string(spec.min - 1), std::string("0x1"), std::string("0.3e")}) {
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
    PromptShape shape{.n_layer = 2, .n_head = 2, .n_head_kv = 1, .head_dim = 4, .n_tokens = 100};
    shape.visual_mask.assign(100, 0);
    shape.visual_mask[3] = 1;
    class Empty final : public LayerObservation {
        void rows(std::span<const int32_t> /*positions*/, std::vector<float> & out) const override { out.clear(); }
    };
    const Traits & t = method->traits();
    const bool observes = t.importance || t.colsum || t.keys || t.values || t.rows != RowsWanted::none || t.probes;
    const int32_t il = std::max(0, t.prune_layer - 1);
    if (observes) {
        const std::string text = error_of([&] { (void)method->score(shape, il, Empty()); });
        EXPECT_NE(text.find("array"), std::string::npos) << text;
    } else {
        EXPECT_NO_THROW((void)method->score(shape, il, Empty()));
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
