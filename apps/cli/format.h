// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>

/// "512 B", "1.25 KiB", "61.4 MiB": three digits or more, binary units.
[[nodiscard]] std::string format_bytes(uint64_t bytes);
/// "196,608"
[[nodiscard]] std::string format_count(uint64_t value);
/// "3.2 ms", "412 ms", "1.73 s"
[[nodiscard]] std::string format_ms(double ms);
/// "42 s", "3 min 08 s", "2 h 05 min"
[[nodiscard]] std::string format_duration(double seconds);
