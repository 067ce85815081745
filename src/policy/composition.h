// SPDX-License-Identifier: MIT
// Rows of the registry from parts: the published pairs, and any other pair that makes sense.
#pragma once

#include <string_view>

#include "kvsieve/policy.h"
#include "policy/parts.h"

namespace kvsieve {

/// The registry's row of a published method. Its parts must exist.
[[nodiscard]] MethodInfo published_info(const MethodRow & row);

/// The row of a pair of parts, kept for the life of the program. Throws Error{invalid_argument} for an unknown part
/// and, with the reason, for a pair that makes no sense.
[[nodiscard]] const MethodInfo & composition_info(std::string_view scorer, std::string_view allocator);

}  // namespace kvsieve
