// SPDX-License-Identifier: MIT
#include "policy/number.h"

#include <array>
#include <charconv>
#include <cmath>

namespace kvsieve {

std::optional<double> parse_number(std::string_view text) {
    double value = 0;
    const char * const end = text.data() + text.size();
    const auto [rest, ec] = std::from_chars(text.data(), end, value);
    if (ec != std::errc() || rest != end || !std::isfinite(value)) {
        return std::nullopt;
    }
    return value;
}

std::optional<uint64_t> parse_unsigned(std::string_view text) {
    uint64_t value = 0;
    const char * const end = text.data() + text.size();
    const auto [rest, ec] = std::from_chars(text.data(), end, value);
    if (ec != std::errc() || rest != end) {
        return std::nullopt;
    }
    return value;
}

std::string number_text(double value) {
    std::array<char, 32> buffer{};
    const auto [end, ec] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
    return {buffer.data(), end};
}

std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    while (true) {
        const size_t end = text.find(separator);
        parts.emplace_back(text.substr(0, end));
        if (end == std::string_view::npos) {
            return parts;
        }
        text.remove_prefix(end + 1);
    }
}

std::string word_list(std::span<const std::string> words) {
    std::string out;
    for (const std::string & word : words) {
        out += (out.empty() ? "" : ", ") + word;
    }
    return out.empty() ? "none" : out;
}

}  // namespace kvsieve
