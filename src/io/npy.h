// SPDX-License-Identifier: MIT
// The .npy header: what the bytes of an array mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

enum class NpyType { f2, f4, f8, i4, i8, u1, b1 };
[[nodiscard]] std::string_view npy_type_name(NpyType type) noexcept;  ///< numpy's words: "float32", "uint8"
[[nodiscard]] size_t npy_type_size(NpyType type) noexcept;            ///< bytes

struct NpyHeader {
    NpyType type = NpyType::f4;
    std::vector<uint64_t> shape;  ///< empty: a scalar
    uint64_t data_offset = 0;     ///< of the first element in the entry
    uint64_t n_elements = 0;      ///< product of the shape, no overflow
};

/// "[4, 2, 48]"
[[nodiscard]] std::string shape_text(std::span<const uint64_t> shape);

/// Longest header that is read, magic included; numpy writes 128 bytes for plain arrays.
inline constexpr size_t kMaxNpyHeader = 4096;

/// Parses the start of a .npy file (C order, little endian). Throws Error{bad_input} that begins with `what`.
[[nodiscard]] NpyHeader parse_npy_header(std::span<const uint8_t> start, const std::string & what);

/// Magic, version 1.0 and the dictionary, padded to a multiple of 64 bytes.
[[nodiscard]] std::string make_npy_header(NpyType type, std::span<const uint64_t> shape);

/// IEEE binary16 to binary32, exact.
[[nodiscard]] float half_to_float(uint16_t bits) noexcept;

}  // namespace kvsieve
