// SPDX-License-Identifier: MIT
// The decode kernel through whole sessions of the embedded model: against ggml's operation within a bound, and bit for
// bit with any number of threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "engine/answers.h"
#include "support/logits.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kSteps = 40;

struct Setup {
    std::string name, method;
    KvType type;
    std::string policy = "default";
    int32_t cap = 0;
};

const Setup kSetups[] = {
    {"full_f16", "full", KvType::f16},
    {"full_q8_0", "full", KvType::q8_0},
    {"full_q4_0", "full", KvType::q4_0},
    {"prefixkv_f16", "prefixkv", KvType::f16},     // layers differ in length, one row leaves at a time
    {"adakv_q8_0", "adakv", KvType::q8_0},         // heads differ in length
    {"h2o_f16", "full", KvType::f16, "h2o", 600},  // the policy looks at the newest row's attention
    {"tova_heads_q8_0", "snapkv", KvType::q8_0, "tova", 200},
};

/// Logits of a prompt with an image and of forced tokens behind it; `plan` receives what the prompt kept.
Logits run(const Setup & setup, int32_t n_threads, bool kernel, Plan * plan = nullptr) {
    SessionOptions options;
    options.method = setup.method;
    options.method_options.keep = setup.method == "full" ? 1.0 : 0.3;
    options.kv_type = setup.type;
    options.decode_policy = setup.policy;
    options.decode_cap = setup.cap;
    options.attention_kernel = kernel;
    Session session(Model::load(embedded_pair(n_threads)), options);
    const auto copy = [](std::span<const float> logits) { return std::vector<float>(logits.begin(), logits.end()); };
    const Turn turn{"What is at the bottom left?",
                    {std::filesystem::path(KVSIEVE_MODELS_DIR) / "examples" / "shapes_1.png"}};
    Logits out{copy(session.feed(turn, true))};
    if (plan != nullptr) {
        *plan = *session.plan();
    }
    for (int32_t i = 0; i < kSteps; ++i) {
        const int32_t token = 10 + 7 * i % 200;
        out.push_back(copy(session.feed(std::span<const int32_t>(&token, 1))));
    }
    return out;
}

bool kept_alike(const Plan & a, const Plan & b) {
    return std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                      [](const LayerPlan & x, const LayerPlan & y) { return x.kept == y.kept; });
}

class DecodeKernel : public testing::TestWithParam<Setup> {};

TEST_P(DecodeKernel, SaysWhatGgmlsOperationSays) {
    Plan plan, reference_plan;
    const Logits kernel = run(GetParam(), 2, true, &plan);
    const Logits ggml = run(GetParam(), 2, false, &reference_plan);
    const double difference = max_difference(kernel, ggml);
    double mean_kl = 0;
    for (size_t i = 1; i < kernel.size(); ++i) {
        mean_kl += kl_divergence(ggml[i], kernel[i]) / kSteps;
    }
    std::cout << GetParam().name << ": max difference " << difference << ", mean KL " << mean_kl << "\n";
    // ggml rounds the query to the rows' type, the kernel does not; scores that differ in the last places may exchange
    // a row of the plan for another one
    const double same_rows = GetParam().type == KvType::f16 ? 0.1 : GetParam().type == KvType::q8_0 ? 0.2 : 0.5;
    const double bound = kept_alike(plan, reference_plan) ? same_rows : 2 * same_rows;
    EXPECT_LE(difference, bound);
    EXPECT_LT(mean_kl, 1e-3);
    for (size_t i = 0; i < kernel.size(); ++i) {
        if (top_two_gap(ggml[i]) > 2 * bound) {
            EXPECT_EQ(argmax(kernel[i]), argmax(ggml[i])) << i;
        }
    }
}

TEST_P(DecodeKernel, DoesNotDependOnThreads) {
    const Logits one = run(GetParam(), 1, true);
    for (const int32_t n_threads : {2, 3}) {
        EXPECT_TRUE(run(GetParam(), n_threads, true) == one) << n_threads << " threads";
    }
}

INSTANTIATE_TEST_SUITE_P(Setups, DecodeKernel, testing::ValuesIn(kSetups),
                         [](const auto & variant) { return variant.param.name; });

}  // namespace
}  // namespace kvsieve::test
