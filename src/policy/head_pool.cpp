// SPDX-License-Identifier: MIT
#include "policy/head_pool.h"

#include "policy/allocator.h"

namespace kvsieve {

std::vector<PoolCut> cut_sets(const PromptShape & prompt, const LayerScore & score, const std::vector<uint8_t> & mask,
                              int64_t n_best, int64_t n_taken, CutScratch & scratch) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    const std::vector<Run> runs = runs_of(mask);
    std::vector<Values> sets;
    for (size_t g = 0; g < n_score_sets(prompt, score); ++g) {
        sets.push_back(
            {.all = std::span(score.score).subspan(g * n_tokens, n_tokens), .runs = runs, .n = n_places(runs)});
    }
    return cut_pool(sets, n_best, n_taken, scratch);
}

}  // namespace kvsieve
