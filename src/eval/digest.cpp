// SPDX-License-Identifier: MIT
#include "eval/digest.h"

#include <sys/types.h>

#include <cstdint>

#include <sha2.h>  // libmd

#include <array>

namespace kvsieve {

std::string sha256(std::string_view bytes) {
    std::array<char, SHA256_DIGEST_STRING_LENGTH> text{};
    SHA256Data(reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size(), text.data());
    return {text.data(), SHA256_DIGEST_STRING_LENGTH - 1};
}

}  // namespace kvsieve
