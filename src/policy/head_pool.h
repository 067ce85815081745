// SPDX-License-Identifier: MIT
// One pool of a layer's scores over all its KV heads.
#pragma once

#include <cstdint>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/select.h"

namespace kvsieve {

/// Order keys of the scores at the positions of `mask`, [n_set][n].
[[nodiscard]] std::vector<uint64_t> pool_keys(const PromptShape & prompt, const LayerScore & score,
                                              const std::vector<uint8_t> & mask);

/// How many of the `n_best` largest of all keys [n_set][n] lie in each set. Among equal keys those that come first in
/// the order (position, set) are left out first.
[[nodiscard]] std::vector<int64_t> best_per_set(const std::vector<uint64_t> & keys, size_t n_set, int64_t n_best);

}  // namespace kvsieve
