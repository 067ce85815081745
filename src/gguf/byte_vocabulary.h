// SPDX-License-Identifier: MIT
// The smallest byte-level BPE vocabulary that libllama takes and that can spell any text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvsieve {

struct ByteVocabulary {
    static constexpr uint32_t kPad = 0;
    static constexpr uint32_t kBos = 1;
    static constexpr uint32_t kImEnd = 4;
    /// ChatML, in a form that libllama recognises.
    static constexpr const char * kChatTemplate =
        "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif %}";

    std::vector<std::string> tokens;  ///< specials, 256 bytes, pairs of letters, then "[n]"
    std::vector<int32_t> types;       ///< 1 = normal, 3 = control
    std::vector<std::string> merges;  ///< of the pairs
};

/// `n_vocab` >= 261.
[[nodiscard]] ByteVocabulary make_byte_vocabulary(int32_t n_vocab);

}  // namespace kvsieve
