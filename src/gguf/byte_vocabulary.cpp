// SPDX-License-Identifier: MIT
#include "gguf/byte_vocabulary.h"

#include <string_view>

namespace kvsieve {
namespace {

/// UTF-8 of a code point below 0x800.
std::string utf8(uint32_t code) {
    if (code < 0x80U) {
        return {static_cast<char>(code)};
    }
    return {static_cast<char>(0xc0U | (code >> 6U)), static_cast<char>(0x80U | (code & 0x3fU))};
}

/// GPT-2's printable stand-ins: a visible Latin-1 byte stands for itself, the others follow from U+0100.
std::vector<std::string> byte_texts() {
    std::vector<std::string> texts;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
        const bool visible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        texts.push_back(utf8(visible ? byte : next++));
    }
    return texts;
}

}  // namespace

ByteVocabulary make_byte_vocabulary(int32_t n_vocab) {
    constexpr int32_t kNormal = 1;
    constexpr int32_t kControl = 3;
    constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz";
    const auto n = static_cast<size_t>(n_vocab);
    ByteVocabulary v;
    v.tokens = {"<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    v.types.assign(v.tokens.size(), kControl);
    for (std::string & text : byte_texts()) {
        v.tokens.push_back(std::move(text));
    }
    for (size_t pair = 0; pair < kLetters.size() * kLetters.size() && v.tokens.size() < n; ++pair) {
        const std::string first(1, kLetters[pair / kLetters.size()]);
        const std::string second(1, kLetters[pair % kLetters.size()]);
        v.merges.push_back(first + " " + second);
        v.tokens.push_back(first + second);
    }
    while (v.tokens.size() < n) {
        v.tokens.push_back("[" + std::to_string(v.tokens.size()) + "]");
    }
    v.types.resize(n, kNormal);
    return v;
}

}  // namespace kvsieve
