// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

namespace kvsieve {

/// `n` tokens of a vocabulary for measuring: the same for the same seed, in every run.
[[nodiscard]] inline std::vector<int32_t> made_up_tokens(int32_t n_vocab, int32_t n, uint32_t seed = 1) {
    std::vector<int32_t> out(static_cast<size_t>(n));
    const uint32_t first = n_vocab > 512 ? 256 : 0;  // behind most special tokens
    for (int32_t & token : out) {
        seed = seed * 1664525U + 1013904223U;
        token = static_cast<int32_t>(first + (seed >> 8U) % (static_cast<uint32_t>(n_vocab) - first));
    }
    return out;
}

}  // namespace kvsieve
