// SPDX-License-Identifier: MIT
#include "vision/image_header.h"

#include "vision/image.h"

// Static: libmtmd has its own copy.
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_ASSERT(x) static_cast<void>(0)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_GIF
#define STBI_ONLY_BMP
#define STBI_ONLY_PNM
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace kvsieve {
namespace {

uint64_t little(std::span<const uint8_t> bytes, size_t at, size_t n) {
    uint64_t value = 0;
    for (size_t i = 0; i < n && at + i < bytes.size(); ++i) {
        value |= static_cast<uint64_t>(bytes[at + i]) << (8 * i);
    }
    return value;
}

}  // namespace

bool read_image_header(std::span<const uint8_t> bytes, int & width, int & height) {
    // stb_image refuses large PNGs as damaged; their size stands at a fixed place.
    constexpr size_t kPngHeader = 24;
    if (bytes.size() >= kPngHeader && bytes[0] == 0x89) {
        const auto big = [bytes](size_t at) {
            return bytes[at] > 0x7F ? -1 : bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
        };
        width = big(16);
        height = big(20);
        if (width > kMaxImageSide || height > kMaxImageSide) {
            return true;
        }
    }
    int channels = 0;
    return stbi_info_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height, &channels) != 0;
}

uint64_t bmp_bytes(std::span<const uint8_t> bytes) {
    const uint64_t offset = little(bytes, 10, 4);
    const bool old = little(bytes, 14, 4) == 12;
    const uint64_t width = old ? little(bytes, 18, 2) : little(bytes, 18, 4);
    const uint64_t rows = old ? little(bytes, 20, 2) : little(bytes, 22, 4);
    // A negative height means top to bottom.
    const uint64_t height = !old && rows > 0x7FFFFFFF ? (uint64_t{1} << 32U) - rows : rows;
    const uint64_t bits = little(bytes, old ? 24 : 28, 2);
    if (bits > 32 || width > 0x7FFFFFFF) {
        return 0;
    }
    return offset + (width * bits + 31) / 32 * 4 * height;
}

}  // namespace kvsieve
