// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace kvsieve {

/// Size in pixels as the file's header says, without decoding; false where there is no readable header.
[[nodiscard]] bool read_image_header(std::span<const uint8_t> bytes, int & width, int & height);

}  // namespace kvsieve
