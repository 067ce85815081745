// SPDX-License-Identifier: MIT
// Numbers and words in messages and options, independent of the locale.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// The whole text as a finite number, else nothing. No spaces, no hexadecimal, no sign but '-'.
[[nodiscard]] std::optional<double> parse_number(std::string_view text);
/// The whole text as an unsigned integer, else nothing.
[[nodiscard]] std::optional<uint64_t> parse_unsigned(std::string_view text);
/// The shortest text that reads back as the same number: 0.2, 5, 1e-08.
[[nodiscard]] std::string number_text(double value);
/// What stands between the separators; one part more than there are of these.
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);
/// "a, b, c"; "none" for an empty list.
[[nodiscard]] std::string word_list(std::span<const std::string> words);

}  // namespace kvsieve
