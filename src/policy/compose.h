// SPDX-License-Identifier: MIT
// A method from its parts: scorer x allocator x scope of the selection.
#pragma once

#include <memory>
#include <string>

#include "kvsieve/policy.h"
#include "policy/parts.h"

namespace kvsieve {

struct MethodParts {
    std::string name;
    std::unique_ptr<const Scorer> scorer;
    std::unique_ptr<const Allocator> allocator;
    Scope scope = Scope::all;
    Granularity granularity = Granularity::layer;
    bool needs_visual = false;   ///< Traits::visual
    bool keep_all_rows = false;  ///< keep = 1: whatever the budgets say, nothing is dropped
    bool merges = false;         ///< Traits::merges
    int32_t prune_layer = 0;     ///< Traits::prune_layer
    int32_t n_threads = 1;
};

[[nodiscard]] std::unique_ptr<Method> compose(MethodParts parts);

}  // namespace kvsieve
