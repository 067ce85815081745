// SPDX-License-Identifier: MIT
#include "vision/image_header.h"

// Static: libmtmd has its own copy.
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_NO_TGA
#define STBI_NO_PIC
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace kvsieve {

bool read_image_header(std::span<const uint8_t> bytes, int & width, int & height) {
    int channels = 0;
    return stbi_info_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height, &channels) != 0;
}

}  // namespace kvsieve
