// SPDX-License-Identifier: MIT
#include "text/utf8_stream.h"

#include <cstdint>

namespace kvsieve {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Sequence {
    size_t n = 0;          // bytes looked at
    bool valid = false;    // these bytes are a character
    bool complete = true;  // false: more bytes could make them one
};

// The longest valid or wrong part at the start of `text` (Unicode 15, table 3-7: no overlong forms, no
// surrogates, nothing above U+10FFFF).
Sequence next_sequence(std::string_view text) {
    const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t b = byte(0);
    if (b < 0x80) {
        return {1, true, true};
    }
    if (b < 0xC2 || b > 0xF4) {
        return {1, false, true};
    }
    const size_t length = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    uint8_t high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; ++i) {
        if (i == text.size()) {
            return {i, false, false};
        }
        if (byte(i) < low || byte(i) > high) {
            return {i, false, true};
        }
        low = 0x80;
        high = 0xBF;
    }
    return {length, true, true};
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
    held_ += bytes;
    std::string out;
    std::string_view rest = held_;
    while (!rest.empty()) {
        const Sequence sequence = next_sequence(rest);
        if (!sequence.complete) {
            break;
        }
        out += sequence.valid ? rest.substr(0, sequence.n) : kReplacement;
        rest.remove_prefix(sequence.n);
    }
    held_ = std::string(rest);
    return out;
}

std::string Utf8Stream::finish() {
    if (held_.empty()) {
        return "";
    }
    held_.clear();
    return std::string(kReplacement);
}

}  // namespace kvsieve
