// SPDX-License-Identifier: MIT
// Image files of known content, made in memory.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace kvsieve::test {

/// PNG with uncompressed data; checksums are zero, which stb_image does not look at. `rows` holds the samples of
/// one row after the other, `color` is PNG's type (0 grey, 2 RGB, 4 grey + alpha, 6 RGBA).
inline std::string make_png(uint32_t width, uint32_t height, int depth, int color, const std::string & samples) {
    const auto big = [](uint32_t v) {
        return std::string{static_cast<char>(v >> 24U), static_cast<char>(v >> 16U), static_cast<char>(v >> 8U),
                           static_cast<char>(v)};
    };
    const auto chunk = [&](const std::string & type, const std::string & data) {
        return big(static_cast<uint32_t>(data.size())) + type + data + big(0);
    };
    const std::string header =
        big(width) + big(height) + static_cast<char>(depth) + static_cast<char>(color) + std::string(3, '\0');
    std::string raw;
    const size_t row = height == 0 ? 0 : samples.size() / height;
    for (size_t y = 0; y < height && row > 0; ++y) {
        raw += '\0';  // no filter
        raw += samples.substr(y * row, row);
    }
    std::string zlib = "\x78\x01";
    for (size_t at = 0; at < raw.size() || at == 0; at += 65535) {
        const std::string block = raw.substr(at, 65535);
        const auto n = static_cast<uint16_t>(block.size());
        zlib += static_cast<char>(at + 65535 >= raw.size() ? 1 : 0);
        for (const uint16_t v : {n, static_cast<uint16_t>(~n)}) {
            zlib += static_cast<char>(v & 0xFFU);
            zlib += static_cast<char>(v >> 8U);
        }
        zlib += block;
    }
    return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("IDAT", zlib + std::string(4, '\0')) + chunk("IEND", "");
}

/// RGB noise with structure: same seed, same picture.
inline std::vector<uint8_t> make_pixels(int32_t width, int32_t height, uint32_t seed = 1) {
    std::vector<uint8_t> rgb(3 * static_cast<size_t>(width) * static_cast<size_t>(height));
    uint32_t state = seed * 2654435761U + 1;
    for (size_t i = 0; i < rgb.size(); ++i) {
        state = state * 1664525U + 1013904223U;
        rgb[i] = static_cast<uint8_t>((i / 7) + (state >> 28U));
    }
    return rgb;
}

inline std::string as_text(const std::vector<uint8_t> & bytes) {
    return {bytes.begin(), bytes.end()};
}
inline std::vector<uint8_t> as_bytes(const std::string & text) {
    return {text.begin(), text.end()};
}

/// Implemented with stb_image_write.
std::string make_jpeg(int32_t width, int32_t height, const std::vector<uint8_t> & rgb);
std::string make_bmp(int32_t width, int32_t height, const std::vector<uint8_t> & rgb);

}  // namespace kvsieve::test
