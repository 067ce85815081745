// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/allocator.h"

namespace kvsieve {

/// PrefixKV's rule while decoding (METHODS 1.5) for a prompt of `n_tokens`: empty where the allocation has no rho.
[[nodiscard]] std::vector<DecodeRule> decode_rules(int32_t n_tokens, const Allocation & allocation,
                                                   std::span<const LayerPlan> layers);

}  // namespace kvsieve
