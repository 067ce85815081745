// SPDX-License-Identifier: MIT
// Questions about a prompt that several methods ask.
#pragma once

#include <cstdint>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Positions of the visual tokens, ascending.
[[nodiscard]] std::vector<int32_t> visual_positions(const PromptShape & prompt);
/// Positions behind the last visual token, ascending; empty without a visual token or without text behind it.
[[nodiscard]] std::vector<int32_t> positions_after_visual(const PromptShape & prompt);

}  // namespace kvsieve
