// SPDX-License-Identifier: MIT
// Every method of the registry through the engine on a random model: rows held are the plan's in every row type, and a
// forced run that keeps everything equals `full` bit for bit. (identity_test.cpp does this on the embedded model.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "engine/observe.h"
#include "engine/random_session.h"
#include "io/observation_file.h"
#include "kvsieve/error.h"

namespace kvsieve::test {
namespace {

constexpr size_t kPrompt = 300;

std::vector<std::string> text_methods() {
    std::vector<std::string> names;
    for (const MethodInfo & info : methods()) {
        if (!info.traits.visual) {
            names.emplace_back(info.name);
        }
    }
    return names;
}

SessionOptions options_of(const std::string & method, double keep, KvType type) {
    SessionOptions options;
    options.method = method;
    options.method_options.keep = method_info(method).keep_of.empty() ? 1.0 : keep;
    options.kv_type = type;
    return options;
}

void expect_rows_are_the_plans(const Session & session) {
    const Plan & plan = *session.plan();
    const KvUsage usage = session.usage();
    uint64_t rows = 0;
    for (int32_t il = 0; il < session.prompt_shape().n_layer; ++il) {
        for (int32_t g = 0; g < session.prompt_shape().n_head_kv; ++g) {
            const auto & kept = plan.layers[static_cast<size_t>(il)].of_head(g);
            EXPECT_EQ(session.positions(il, g), kept) << il << " " << g;
            EXPECT_EQ(usage.rows_of[static_cast<size_t>(il)][static_cast<size_t>(g)],
                      static_cast<int32_t>(kept.size()));
            rows += kept.size();
        }
    }
    EXPECT_EQ(usage.rows, rows);
}

class Methods : public testing::TestWithParam<std::tuple<std::string, KvType>> {};

TEST_P(Methods, RowsHeldAreThePlans) {
    const auto & [method, type] = GetParam();
    const std::vector<int32_t> tokens = random_tokens(kPrompt + 8);
    const std::span<const int32_t> all(tokens);
    for (const double keep : {0.5, 0.1}) {
        Session session(random_model(), options_of(method, keep, type));
        session.feed(all.first(kPrompt));
        expect_rows_are_the_plans(session);
        EXPECT_LE(session.peak_kv_bytes(), 3 * 2 * (kPrompt + 32) * 64 * 4 + 4 * 2 * kPrompt * 64 + 6 * 4096U);
        const std::vector<float> logits = feed_one_by_one(session, all.last(8));
        EXPECT_TRUE(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }));
    }
}

TEST_P(Methods, ForcedKeepAllEqualsFull) {
    const auto & [method, type] = GetParam();
    const std::vector<int32_t> tokens = random_tokens(kPrompt + 8);
    const std::span<const int32_t> all(tokens);
    SessionOptions options = options_of(method, 1.0, type);
    options.force_compaction = true;
    Session forced(random_model(), options), full(random_model(), options_of("full", 1.0, type));
    const auto a = forced.feed(all.first(kPrompt)), b = full.feed(all.first(kPrompt));
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
    EXPECT_EQ(feed_one_by_one(forced, all.last(8)), feed_one_by_one(full, all.last(8)));
    EXPECT_EQ(forced.usage().rows, full.usage().rows);
}

INSTANTIATE_TEST_SUITE_P(Registry, Methods,
                         testing::Combine(testing::ValuesIn(text_methods()),
                                          testing::Values(KvType::f16, KvType::q8_0, KvType::q4_0)),
                         [](const auto & variant) {
                             return std::get<0>(variant.param) + "_" +
                                    std::string(kv_type_name(std::get<1>(variant.param)));
                         });

TEST(Observe, PlanOfTheFileIsTheRunsOwnForEveryMethod) {
    const TempFile file(".npz");
    const Turn turn{std::string(200, 'x') + " What is on the left? " + std::string(90, 'y'), {}};
    SessionOptions plain;
    plain.chat_template = "raw";
    const Traits all = all_observations();
    const PromptShape prompt = write_observations(random_model(), plain, turn, all, file.path());
    EXPECT_GT(prompt.n_tokens, 250);
    for (const std::string & name : text_methods()) {
        for (const double keep : {0.5, 0.13}) {
            SessionOptions options = options_of(name, keep, KvType::f16);
            options.chat_template = "raw";
            Session session(random_model(), options);
            session.feed(turn, true);
            const auto method = make_method(name, options.method_options);
            const ObservationFile seen(file.path(), name, method->traits());
            const Plan plan = plan_from_file(*method, seen);
            EXPECT_EQ(plan.layers, session.plan()->layers) << name << " " << keep;
            EXPECT_EQ(plan.extra, session.plan()->extra) << name;
        }
    }
}

}  // namespace
}  // namespace kvsieve::test
