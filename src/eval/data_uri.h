// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace kvsieve {

/// "data:image/png;base64,..." (RFC 2397, RFC 4648)
[[nodiscard]] std::string data_uri(std::string_view mime, std::string_view bytes);

}  // namespace kvsieve
