// SPDX-License-Identifier: MIT
// Text as the benchmarks' Python code sees it: code points, white space, lower case.
#pragma once

#include <string>
#include <string_view>

namespace kvsieve {

/// Code points of UTF-8; each byte that belongs to no valid sequence becomes U+FFFD.
[[nodiscard]] std::u32string decode_utf8(std::string_view text);
/// What Python's str.split() and str.strip() take for white space.
[[nodiscard]] bool is_python_space(char32_t c) noexcept;
[[nodiscard]] std::u32string_view strip(std::u32string_view text) noexcept;
/// Code point by code point, by the C library's Unicode tables. Differs from Python's str.lower() in U+0130, which
/// Python makes two code points, and in the sigma at a word's end.
[[nodiscard]] std::u32string to_lower(std::u32string_view text);

}  // namespace kvsieve
