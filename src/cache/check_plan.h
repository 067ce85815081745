// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Throws Error{invalid_argument} unless the plan has 1 or n_head_kv lists, each ascending, unique and in
/// [0, n_positions). `il` is for the message.
void check_layer_plan(const LayerPlan & plan, int32_t il, int32_t n_head_kv, int32_t n_positions);

}  // namespace kvsieve
