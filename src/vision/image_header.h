// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace kvsieve {

/// Size in pixels as the file's header says, without decoding; false where there is no readable header.
[[nodiscard]] bool read_image_header(std::span<const uint8_t> bytes, int & width, int & height);

/// Bytes that an uncompressed BMP of this header has; 0 where the header does not say.
[[nodiscard]] uint64_t bmp_bytes(std::span<const uint8_t> bytes);

}  // namespace kvsieve
