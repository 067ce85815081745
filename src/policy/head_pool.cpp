// SPDX-License-Identifier: MIT
#include "policy/head_pool.h"

#include <algorithm>

#include "policy/allocator.h"
#include "policy/order.h"

namespace kvsieve {

std::vector<uint64_t> pool_keys(const PromptShape & prompt, const LayerScore & score,
                                const std::vector<uint8_t> & mask) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    const size_t n_set = n_score_sets(prompt, score);
    std::vector<uint64_t> keys;
    keys.reserve(score.score.size());
    for (size_t g = 0; g < n_set; ++g) {
        for (size_t k = 0; k < n_tokens; ++k) {
            if (mask[k] != 0) {
                keys.push_back(order_key(score.score[g * n_tokens + k]));
            }
        }
    }
    return keys;
}

std::vector<int64_t> best_per_set(const std::vector<uint64_t> & keys, size_t n_set, int64_t n_best) {
    const size_t n = keys.size() / n_set;
    const int64_t n_drop =
        std::clamp<int64_t>(static_cast<int64_t>(keys.size()) - n_best, 0, static_cast<int64_t>(keys.size()));
    std::vector<int64_t> counts(n_set, static_cast<int64_t>(n));
    if (n_drop == 0) {
        return counts;
    }
    std::vector<uint64_t> scratch;
    Cut cut = find_cut(keys, n_drop, scratch);
    for (size_t g = 0; g < n_set; ++g) {
        for (size_t k = 0; k < n; ++k) {
            counts[g] -= keys[g * n + k] < cut.key ? 1 : 0;
        }
    }
    for (size_t k = 0; k < n && cut.n_tied > 0; ++k) {
        for (size_t g = 0; g < n_set && cut.n_tied > 0; ++g) {
            if (keys[g * n + k] == cut.key) {
                --counts[g];
                --cut.n_tied;
            }
        }
    }
    return counts;
}

}  // namespace kvsieve
