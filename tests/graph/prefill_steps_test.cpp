// SPDX-License-Identifier: MIT
// What a prefill does between two moments at which its caller may do other work.
#include <gtest/gtest.h>

#include "graph/tiny_run.h"

namespace kvsieve::test {
namespace {

TEST(PrefillSteps, ArePartsOfAChunksLayer) {
    constexpr int32_t kTokens = 600;  // two chunks
    const TempFile file(".gguf");
    write_model(narrow_shape(2, 2048), file.path());
    TinyRun run(file.path());
    const auto method = make_method("full", {});
    const PromptShape shape{2, 4, 2, 64, kTokens, {}};
    Prefill work(run.runner, *run.decoder, run.cache, *method, shape, run.embed(some_tokens(kTokens, 1, 270)), false);
    EXPECT_TRUE(work.next_fits(0.0, 0.0)) << "there is always a first part";
    EXPECT_FALSE(work.next_fits(1.0, 0.0));
    EXPECT_TRUE(work.step());
    EXPECT_TRUE(work.step());
    EXPECT_TRUE(work.next_fits(0.0, 0.0)) << "no longer than the longest so far";
    EXPECT_TRUE(work.next_fits(1e6, 1e9));
    EXPECT_FALSE(work.next_fits(1e6, 1e6)) << "the next part takes time, as the first one did";
    int32_t n_steps = 3;
    while (work.step()) {
        ++n_steps;
    }
    // attention and feed-forward of each chunk, the latter of the last layer for the last token only; storing; the plan
    EXPECT_EQ(n_steps, (2 * 2 + 1) + (2 + 1 + 1) + 1);
    EXPECT_FALSE(work.step());
    EXPECT_DOUBLE_EQ(work.progress(), 1.0);
    EXPECT_GE(work.buffer_bytes(), (kTokens * 64U + 512U * 4U * 64U) * sizeof(float))
        << "the stream and a chunk's heads";
}

}  // namespace
}  // namespace kvsieve::test
