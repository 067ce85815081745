// SPDX-License-Identifier: MIT
// A session that begins with a shared prefill equals one that prefilled itself, bit for bit: every method, keep or cap,
// every row type.
#include <gtest/gtest.h>

#include "engine/answers.h"
#include "kvsieve/error.h"
#include "support/expect_error.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

std::shared_ptr<const Model> embedded() {
    static const std::shared_ptr<const Model> model = [] {
        ModelOptions files = embedded_pair();
        files.n_threads = 1;
        return Model::load(files);
    }();
    return model;
}

Turn some_turn() {
    return {"What is the score?", {std::filesystem::path(KVSIEVE_MODELS_DIR) / "examples" / "form_1.png"}};
}

std::vector<MethodName> all_methods() {
    std::vector<MethodName> names;
    for (const MethodInfo & info : methods()) {
        names.push_back({.name = std::string(info.name)});
    }
    names.push_back({.name = "expected_attention", .params = {{"n_sink", "2"}}});  // other sums of its own
    names.push_back({.name = "aircache", .params = {{"alpha", "0.5"}}});
    names.push_back({.name = "random", .seed = 3});
    names.push_back({.name = "sieve", .params = {{"precision", "auto"}}});
    names.push_back({.name = composition_name("snapkv", "prefixkv")});
    return names;
}

const SharedPrefill & shared() {
    static const SharedPrefill prefill = [] {
        SharedPrefill made(embedded(), {}, all_methods());
        made.feed(some_turn(), true);
        return made;
    }();
    return prefill;
}

Logits forced(Session & session, std::span<const float> first) {
    Logits out{{first.begin(), first.end()}};
    for (const int32_t token : {40, 300, 77, 12}) {
        const auto logits = session.feed(std::span<const int32_t>(&token, 1));
        out.emplace_back(logits.begin(), logits.end());
    }
    return out;
}

void expect_alike(const SessionOptions & options) {
    Session own(embedded(), options);
    const auto first = own.feed(some_turn(), true);
    Session begun = shared().begin(options);
    EXPECT_EQ(begun.method_options().keep, own.method_options().keep);
    EXPECT_EQ(begun.n_processed(), own.n_processed());
    EXPECT_EQ(begun.plan()->layers, own.plan()->layers);
    EXPECT_EQ(begun.usage().bytes_held, own.usage().bytes_held);
    EXPECT_EQ(begun.usage().type_of, own.usage().type_of);
    EXPECT_EQ(begun.images().size(), own.images().size());
    const Logits a = forced(own, first), b = forced(begun, begun.logits());
    EXPECT_TRUE(a == b) << "max difference " << max_difference(a, b);
    for (int32_t il = 0; il < own.prompt_shape().n_layer; ++il) {
        for (int32_t g = 0; g < own.prompt_shape().n_head_kv; ++g) {
            EXPECT_EQ(begun.positions(il, g), own.positions(il, g));
        }
    }
}

class Shared : public testing::TestWithParam<size_t> {};

TEST_P(Shared, BeginsAsIfItHadPrefilled) {
    const MethodName method = all_methods()[GetParam()];
    SessionOptions options;
    options.method = method.name;
    options.method_options.params = method.params;
    options.method_options.seed = method.seed;
    const bool takes_keep = !method_info(method.name).keep_of.empty();
    options.method_options.keep = takes_keep ? 0.3 : 1.0;
    expect_alike(options);
    const bool types = make_method(method.name, options.method_options)->traits().row_types;
    options.kv_type = types ? KvType::f16 : KvType::q4_0;
    expect_alike(options);
    if (takes_keep) {
        options.kv_type = types ? KvType::f16 : KvType::q8_0;
        options.kv_share = 0.25;
        expect_alike(options);
        options.kv_share = 0.9;  // more than all rows take in this type
        expect_alike(options);
    }
}
INSTANTIATE_TEST_SUITE_P(All, Shared, testing::Range<size_t>(0, all_methods().size()), [](const auto & at) {
    std::string name = all_methods()[at.param].name;
    std::replace(name.begin(), name.end(), '+', '_');
    return name + std::to_string(at.param);
});

TEST(SharedPrefill, AConversationGoesOn) {
    SessionOptions options;
    options.method = "prefixkv";
    options.method_options.keep = 0.6;
    const GenerateOptions generate{.n_predict = 12, .stop = {}, .sampling = {}};
    const Turn next{"What is at the top?", {}};
    Session own(embedded(), options);
    Session begun = shared().begin(options);
    EXPECT_EQ(begun.generate(generate).text, own.ask(some_turn(), generate).text);
    EXPECT_EQ(begun.ask(next, generate).text, own.ask(next, generate).text);
}

TEST(SharedPrefill, WhatDoesNotFitIsASentence) {
    SessionOptions options;
    options.method = "snapkv";
    options.method_options.params = {{"window", "16"}};
    options.method_options.keep = 0.5;
    expect_error(ErrorCode::invalid_argument, "not among those", [&] { static_cast<void>(shared().begin(options)); });
    options.method_options.params = {};
    options.n_ctx = 500;
    expect_error(ErrorCode::invalid_argument, "another context", [&] { static_cast<void>(shared().begin(options)); });

    SharedPrefill text(embedded(), {}, {{.name = "full"}, {.name = "aircache"}});
    expect_error(ErrorCode::invalid_argument, "before its prompt", [&] { static_cast<void>(text.full()); });
    text.feed(Turn{"What is the score?", {}}, true);
    EXPECT_TRUE(text.scores({.name = "aircache"}).empty());
    SessionOptions visual;
    visual.method = "aircache";
    visual.method_options.keep = 0.5;
    std::string own;
    try {
        static_cast<void>(Session(embedded(), visual).feed(Turn{"What is the score?", {}}, true));
    } catch (const Error & error) {
        own = error.what();
    }
    ASSERT_FALSE(own.empty());
    expect_error(ErrorCode::invalid_argument, own, [&] { static_cast<void>(text.begin(visual)); });
    expect_error(ErrorCode::invalid_argument, "takes one prompt", [&] { text.feed(Turn{"Again", {}}, true); });
    Session fresh(embedded(), {});
    expect_error(ErrorCode::invalid_argument, "nothing to answer", [&] { static_cast<void>(fresh.generate({})); });
}

}  // namespace
}  // namespace kvsieve::test
