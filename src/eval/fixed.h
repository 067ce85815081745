// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <charconv>
#include <string>

namespace kvsieve {

/// The number with so many decimals, independent of the locale; "–" where it is not finite.
[[nodiscard]] inline std::string fixed(double value, int digits) {
    std::array<char, 400> buffer{};
    const auto [end, ec] =
        std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, digits);
    return value - value == 0 ? std::string(buffer.data(), end) : "–";
}

}  // namespace kvsieve
