// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Elastic Cache's anchors (METHODS 2): every dropped position of 1 .. T-2 merges into the kept position of that range
/// that is nearest to it, the lower one of two. Nothing merges where none of these is kept. By ascending `from`.
[[nodiscard]] std::vector<Merge> merges_into_nearest(std::span<const int32_t> kept, int32_t n_tokens);

}  // namespace kvsieve
