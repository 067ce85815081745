// SPDX-License-Identifier: MIT
// Plans as JSON, with the names of the golden cases.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "kvsieve/policy.h"

namespace kvsieve {

/// A trace of simulate_decode() and the number of its steps.
struct SimulatedDecode {
    int32_t n_steps = 0;
    DecodeTrace trace;
};

/// {method, keep | layer_ratios, n_kv, n_layer, kept, n_kept, keeps_everything, the plan's extras, decode}.
/// `kept` holds per layer a list of positions, or one such list per KV head. `keep` is null where a profile gave
/// the budgets; `layer_ratios` then holds its forgotten fractions.
[[nodiscard]] nlohmann::ordered_json plan_to_json(std::string_view method, const MethodOptions & options,
                                                  const PromptShape & prompt, const Plan & plan,
                                                  const std::optional<SimulatedDecode> & decode = std::nullopt);

}  // namespace kvsieve
