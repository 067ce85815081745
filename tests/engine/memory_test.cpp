// SPDX-License-Identifier: MIT
// Memory of whole processes: what compaction gives back is given back, and nothing grows with use. The shape has 24
// layers of 16 x 128 KV heads, 196,608 bytes of f16 rows per token. docs/memory.md has the figures.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "support/random_model.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // sanitizers keep freed memory
namespace kvsieve::test {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

ModelShape wide_cache() {
    ModelShape shape;
    shape.n_layer = 24;
    shape.n_embd = 256;
    shape.n_head = shape.n_head_kv = 16;
    shape.head_dim = 128;
    shape.n_ff = 512;
    return shape;
}

nlohmann::json probe(const TempFile & model, const std::string & arguments) {
    const std::string command = std::string(KVSIEVE_MEMORY_PROBE) + " " + model.path().string() + " " + arguments;
    FILE * pipe = popen(command.c_str(), "r");
    std::string out;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
        out += static_cast<char>(c);
    }
    EXPECT_EQ(pclose(pipe), 0) << command;
    return nlohmann::json::parse(out);
}

TEST(Memory, OfDroppedRowsIsGivenBack) {
    const TempFile model(".gguf");
    write_model(wide_cache(), model.path());
    const nlohmann::json full = probe(model, "full 1.0 2048 1");
    const nlohmann::json kept = probe(model, "prefixkv 0.2 2048 1");
    EXPECT_EQ(full["held"].get<uint64_t>(), 2048U * 196608U);
    EXPECT_LE(kept["held"].get<uint64_t>(), full["held"].get<uint64_t>() / 5 + 24U * 8192U);
    const double less = (full["resident"].get<double>() - kept["resident"].get<double>()) / 1e6;
    std::printf("resident %.0f MB full, %.0f MB at keep 0.2\n", full["resident"].get<double>() / 1e6,
                kept["resident"].get<double>() / 1e6);
    EXPECT_GE(less, 300.0);
    for (const nlohmann::json & run : {full, kept}) {
        // rows, one layer beside them, graphs and what a prefill holds beside; the weights are pages of the file
        const double stated = run["peak_kv"].get<double>() + run["scratch"].get<double>();
        const double weights = 121e6;
        EXPECT_LE(run["peak"].get<double>() - run["before"].get<double>(), stated + weights + 32 * kMiB);
        EXPECT_GE(run["peak"].get<double>(), stated);
    }
}

TEST(Memory, IsFlatOverAHundredCycles) {
    const TempFile model(".gguf");
    ModelShape shape = wide_cache();
    shape.n_layer = 4;
    write_model(shape, model.path());
    const nlohmann::json run = probe(model, "prefixkv 0.2 256 101");
    const auto resident = run["after_cycle"].get<std::vector<double>>();
    ASSERT_EQ(resident.size(), 100U);
    const double early = *std::max_element(resident.begin(), resident.begin() + 10);
    const double late = *std::max_element(resident.begin() + 10, resident.end());
    EXPECT_LE(late, early + 1 * kMiB) << run["after_cycle"];
}

}  // namespace
}  // namespace kvsieve::test
#endif
