// SPDX-License-Identifier: MIT
// Image files to 8-bit RGB, by the same decoder as llama.cpp's tools (stb_image; alpha is dropped, the first
// frame of an animation is taken).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace kvsieve {

constexpr int32_t kMaxImageSide = 16384;
constexpr int64_t kMaxImagePixels = 64'000'000;
constexpr uint64_t kMaxImageBytes = 256U << 20U;  ///< of the file

struct Image {
    std::string name;  ///< path or what the caller called it
    int32_t width = 0;
    int32_t height = 0;
    std::vector<uint8_t> rgb;  ///< [height][width][3]
    std::string id;            ///< SHA-256 of the file, 64 hexadecimal digits
};

/// PNG, JPEG, GIF, BMP and PNM files. Throws Error{bad_input} (missing, empty, not an image, cut) or
/// Error{too_large} (limits above; the size is checked before anything is decoded).
[[nodiscard]] Image load_image(const std::filesystem::path & path);
[[nodiscard]] Image decode_image(std::span<const uint8_t> bytes, const std::string & name);

}  // namespace kvsieve
