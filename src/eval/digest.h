// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace kvsieve {

/// SHA-256 in 64 hexadecimal digits.
[[nodiscard]] std::string sha256(std::string_view bytes);

}  // namespace kvsieve
