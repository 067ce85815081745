// SPDX-License-Identifier: MIT
// One pool of a layer's scores over all its KV heads.
#pragma once

#include <cstdint>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/order.h"

namespace kvsieve {

/// cut_pool() of the scores at the positions of `mask`. [number of sets]
[[nodiscard]] std::vector<PoolCut> cut_sets(const PromptShape & prompt, const LayerScore & score,
                                            const std::vector<uint8_t> & mask, int64_t n_best, int64_t n_taken,
                                            CutScratch & scratch);

}  // namespace kvsieve
