// SPDX-License-Identifier: MIT
// kvsieve bench, started as a user would.
#include <nlohmann/json.hpp>
#include <sstream>

#include "program.h"

namespace cli_test {
namespace {

Finished bench(std::vector<std::string> args) {
    args.insert(args.begin(), "bench");
    return run_program(args);
}

TEST(BenchCommand, WritesALineForEachCase) {
    const Finished done = bench({"--prompt-tokens", "40,70", "--gen", "3", "--repeat", "2", "--method", "prefixkv",
                                 "--keep", "1,0.5", "--kv-type", "q8_0", "--threads", "2", "--json"});
    ASSERT_EQ(done.exit_code, 0) << done.err;
    std::istringstream lines(done.out);
    std::vector<nlohmann::json> all;
    for (std::string line; std::getline(lines, line);) {
        all.push_back(nlohmann::json::parse(line));
    }
    ASSERT_EQ(all.size(), 4U);
    for (size_t i = 0; i < all.size(); ++i) {
        const nlohmann::json & line = all[i];
        EXPECT_EQ(line.at("n_prompt"), i < 2 ? 40 : 70);
        EXPECT_EQ(line.at("keep"), i % 2 == 0 ? 1.0 : 0.5);
        EXPECT_EQ(line.at("n_seq"), 1);
        EXPECT_EQ(line.at("n_gen"), 3);
        EXPECT_EQ(line.at("method"), "prefixkv");
        EXPECT_EQ(line.at("kv_type"), "q8_0");
        EXPECT_EQ(line.at("threads"), 2);
        EXPECT_TRUE(line.contains("observe_ms"));
        for (const char * name : {"prefill_tps", "ttft_ms", "decode_tps", "step_ms_p50", "step_ms_p90", "kv_bytes",
                                  "kv_bytes_peak", "rss_bytes"}) {
            EXPECT_GT(line.at(name).get<double>(), 0.0) << name;
        }
        EXPECT_LE(line.at("step_ms_p50"), line.at("step_ms_p90"));
    }
    EXPECT_LT(all[1].at("kv_bytes"), all[0].at("kv_bytes"));
}

TEST(BenchCommand, DecodesBatches) {
    const Finished done = bench({"--prompt-tokens", "40", "--gen", "3", "--repeat", "1", "--method", "h2o", "--keep",
                                 "0.5", "--batch", "1,3", "--json"});
    ASSERT_EQ(done.exit_code, 0) << done.err;
    const size_t end = done.out.find('\n');
    const auto one = nlohmann::json::parse(done.out.substr(0, end));
    const auto three = nlohmann::json::parse(done.out.substr(end + 1));
    EXPECT_EQ(three.at("n_seq"), 3);
    EXPECT_EQ(three.at("kv_bytes").get<uint64_t>(), 3 * one.at("kv_bytes").get<uint64_t>());
}

TEST(BenchCommand, PrintsATable) {
    const Finished done = bench({"--prompt-tokens", "20", "--gen", "1", "--repeat", "1", "--attention", "ggml"});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(std::count(done.out.begin(), done.out.end(), '\n'), 2) << done.out;
    EXPECT_NE(done.out.find("tokens/s"), std::string::npos);
}

TEST(BenchCommand, WhateverIsWrongIsOneSentence) {
    const std::pair<std::vector<std::string>, const char *> cases[] = {
        {{"--prompt-tokens", "10,x"}, "--prompt-tokens has 'x'"},
        {{"--prompt-tokens", "10", "--image", "a.png"}, "exclude each other"},
        {{"--visual", "10", "--image", "models/examples/form_1.png"}, "exclude each other"},
        {{"--visual", "60", "--prompt-tokens", "64"}, "leaves no room for text"},
        {{"--keep", "0.5,2", "--method", "prefixkv"}, "2"},
        {{"--batch", "0"}, "--batch has '0'"},
        {{"--batch", "2", "--attention", "ggml"}, "decode kernel"},
        {{"--gen", "0"}, "--gen"},
    };
    for (const auto & [args, expected] : cases) {
        const Finished done = bench(args);
        EXPECT_EQ(done.exit_code, 2) << expected;
        EXPECT_EQ(done.out, "");
        EXPECT_EQ(std::count(done.err.begin(), done.err.end(), '\n'), 1) << done.err;
        EXPECT_NE(done.err.find(expected), std::string::npos) << done.err;
    }
}

}  // namespace
}  // namespace cli_test
