// SPDX-License-Identifier: MIT
#include "policy/prompt.h"

namespace kvsieve {

std::vector<int32_t> visual_positions(const PromptShape & prompt) {
    std::vector<int32_t> out;
    for (size_t k = 0; k < prompt.visual_mask.size(); ++k) {
        if (prompt.visual_mask[k] != 0) {
            out.push_back(static_cast<int32_t>(k));
        }
    }
    return out;
}

std::vector<int32_t> positions_after_visual(const PromptShape & prompt) {
    const std::vector<int32_t> visual = visual_positions(prompt);
    std::vector<int32_t> out;
    if (!visual.empty()) {
        for (int32_t k = visual.back() + 1; k < prompt.n_tokens; ++k) {
            out.push_back(k);
        }
    }
    return out;
}

}  // namespace kvsieve
