// SPDX-License-Identifier: MIT
// The vocabulary of a language model through libllama, loaded without its weights (about 40 ms and 13 MB).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"

struct llama_model;
struct llama_vocab;

namespace kvsieve {

/// Immutable and thread-safe after construction.
class TextModel {
  public:
    /// Checks the tokenizer's metadata, then lets libllama load them. Throws Error{bad_input}. The file is not
    /// kept.
    explicit TextModel(const GgufFile & file);
    ~TextModel();
    TextModel(TextModel &&) noexcept;
    TextModel & operator=(TextModel &&) noexcept;

    [[nodiscard]] int32_t n_vocab() const;
    [[nodiscard]] int32_t n_embd() const;   ///< width of an input embedding
    [[nodiscard]] bool uses_mrope() const;  ///< positions have 4 components (time, y, x, 0)
    [[nodiscard]] int32_t bos() const;      ///< -1 where there is none
    [[nodiscard]] bool adds_bos() const;    ///< what add_special means for this vocabulary
    [[nodiscard]] bool is_eog(int32_t token) const;
    /// The chat template in the file; empty where there is none.
    [[nodiscard]] const std::string & own_template() const;

    /// `add_special` adds BOS (and EOS) where the model wants them; `parse_special` reads "<|im_end|>" and the
    /// like as one token.
    [[nodiscard]] std::vector<int32_t> tokenize(std::string_view text, bool add_special, bool parse_special) const;
    /// Bytes of one token; may be part of a UTF-8 sequence (see Utf8Stream). Special tokens give "" unless asked
    /// for. Throws Error{invalid_argument} for a token outside the vocabulary.
    [[nodiscard]] std::string piece(int32_t token, bool special = false) const;
    [[nodiscard]] std::string detokenize(std::span<const int32_t> tokens, bool special = false) const;

    [[nodiscard]] const llama_model * handle() const { return model_; }
    [[nodiscard]] const llama_vocab * vocab() const;

  private:
    llama_model * model_ = nullptr;
    std::string own_template_;
};

}  // namespace kvsieve
