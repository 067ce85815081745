// SPDX-License-Identifier: MIT
// One function per method: its row of the registry (traits are filled in by the registry).
#pragma once

#include "kvsieve/policy.h"

namespace kvsieve {

[[nodiscard]] MethodInfo full_info();
[[nodiscard]] MethodInfo random_info();
[[nodiscard]] MethodInfo prefixkv_info();
[[nodiscard]] MethodInfo aircache_info();

}  // namespace kvsieve
