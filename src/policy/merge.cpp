// SPDX-License-Identifier: MIT
#include "policy/merge.h"

#include <cstdlib>

namespace kvsieve {

std::vector<Merge> merges_into_nearest(std::span<const int32_t> kept, int32_t n_tokens) {
    std::vector<int32_t> anchors;
    std::vector<uint8_t> stays(static_cast<size_t>(n_tokens), 0);
    for (const int32_t k : kept) {
        stays[static_cast<size_t>(k)] = 1;
        if (k > 0 && k < n_tokens - 1) {
            anchors.push_back(k);
        }
    }
    std::vector<Merge> out;
    if (anchors.empty()) {
        return out;
    }
    out.reserve(stays.size() - kept.size());
    size_t i = 0;  // anchors[i] is the nearest so far; the nearest never moves back as t grows
    for (int32_t t = 1; t < n_tokens - 1; ++t) {
        while (i + 1 < anchors.size() && std::abs(anchors[i + 1] - t) < std::abs(anchors[i] - t)) {
            ++i;
        }
        if (stays[static_cast<size_t>(t)] == 0) {
            out.push_back({.from = t, .into = anchors[i]});
        }
    }
    return out;
}

}  // namespace kvsieve
