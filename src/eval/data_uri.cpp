// SPDX-License-Identifier: MIT
#include "eval/data_uri.h"

#include <cstdint>

namespace kvsieve {

std::string data_uri(std::string_view mime, std::string_view bytes) {
    static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out = "data:" + std::string(mime) + ";base64,";
    for (size_t i = 0; i < bytes.size(); i += 3) {
        uint32_t three = 0;
        for (size_t k = 0; k < 3; ++k) {
            three = three << 8U | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
        }
        for (size_t k = 0; k < 4; ++k) {
            out += i + k > bytes.size() ? '=' : kDigits[three >> (18 - 6 * k) & 63U];
        }
    }
    return out;
}

}  // namespace kvsieve
