// SPDX-License-Identifier: MIT
#include "format.h"

#include <fmt/format.h>

#include <array>

std::string format_bytes(uint64_t bytes) {
    static constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        return fmt::format("{} B", bytes);
    }
    double value = static_cast<double>(bytes) / 1024.0;
    size_t unit = 0;
    while (value >= 1023.5 && unit + 1 < kUnits.size()) {
        value /= 1024.0;
        ++unit;
    }
    return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string format_count(uint64_t value) {
    std::string digits = std::to_string(value);
    for (size_t at = digits.size(); at > 3; at -= 3) {
        digits.insert(at - 3, ",");
    }
    return digits;
}

std::string format_ms(double ms) {
    if (ms >= 1000.0) {
        return fmt::format("{:.2f} s", ms / 1000.0);
    }
    return fmt::format("{:.{}f} ms", ms, ms < 9.95 ? 1 : 0);
}

std::string format_duration(double seconds) {
    const auto s = static_cast<int64_t>(seconds + 0.5);
    if (s < 60) {
        return fmt::format("{} s", s);
    }
    return s < 3600 ? fmt::format("{} min {:02} s", s / 60, s % 60)
                    : fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}
