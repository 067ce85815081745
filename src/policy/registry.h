// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "policy/parts.h"

namespace kvsieve {

/// What the files of methods/ add, in the order of the documentation.
[[nodiscard]] std::span<const MethodFile> method_files();

}  // namespace kvsieve
