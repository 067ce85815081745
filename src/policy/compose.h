// SPDX-License-Identifier: MIT
// A method from its parts: scorer x allocator x scope of the selection.
#pragma once

#include <memory>
#include <string_view>

#include "kvsieve/policy.h"
#include "policy/allocator.h"
#include "policy/scorer.h"
#include "policy/select.h"

namespace kvsieve {

struct MethodParts {
    std::string_view name;  ///< with static lifetime
    std::unique_ptr<const Scorer> scorer;
    std::unique_ptr<const Allocator> allocator;
    Scope scope = Scope::all;
    bool needs_visual = false;   ///< Traits::visual
    bool keep_all_rows = false;  ///< keep = 1: whatever the budgets say, nothing is dropped
};

[[nodiscard]] std::unique_ptr<Method> compose(MethodParts parts);

}  // namespace kvsieve
