// SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace kvsieve {

/// The tables of docs/methods.md, from the registry: methods, scorers, allocators.
[[nodiscard]] std::string methods_markdown();

}  // namespace kvsieve
