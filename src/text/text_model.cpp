// SPDX-License-Identifier: MIT
#include "text/text_model.h"

#include <llama.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <unordered_set>
#include <utility>

#include "kvsieve/error.h"
#include "text/upstream.h"

namespace kvsieve {
namespace {

[[noreturn]] void fail(const GgufFile & file, const std::string & what) {
    throw Error(ErrorCode::bad_input, file.path().string() + " " + what);
}

void check_array(const GgufFile & file, const std::string & key, const std::string & type, size_t n) {
    if (!file.has(key)) {
        return;
    }
    if (file.type_of(key) != "arr[" + type + "]" || file.array_size(key) < n) {
        const bool is_array = file.type_of(key).starts_with("arr");
        const std::string came =
            is_array ? std::to_string(file.array_size(key)) + " of " + file.type_of(key) : file.type_of(key);
        fail(file, "has " + came + " in '" + key + "', expected " + std::to_string(n) + " of arr[" + type + "]");
    }
}

// What libllama asserts or reads without a check while it loads a vocabulary.
void check_vocabulary(const GgufFile & file) {
    const std::string model = file.get_str("tokenizer.ggml.model");
    if (model == "none" || model == "no_vocab") {
        fail(file, "has no vocabulary (tokenizer.ggml.model is '" + model + "'), expected a language model");
    }
    const std::vector<std::string> tokens = file.get_str_array("tokenizer.ggml.tokens");
    if (tokens.empty() || tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        fail(file, "has " + std::to_string(tokens.size()) + " tokens in its vocabulary");
    }
    std::unordered_set<std::string> seen;
    seen.reserve(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
        const std::string & token = tokens[i];
        if (!seen.insert(token.empty() ? "[EMPTY_" + std::to_string(i) + "]" : token).second) {
            fail(file, "has token " + std::to_string(i) + " twice in its vocabulary");
        }
    }
    if (file.type_of("tokenizer.ggml.scores") != "arr[i32]") {
        check_array(file, "tokenizer.ggml.scores", "f32", tokens.size());
    } else {
        check_array(file, "tokenizer.ggml.scores", "i32", tokens.size());
    }
    check_array(file, "tokenizer.ggml.token_type", "i32", tokens.size());
    check_array(file, "tokenizer.ggml.merges", "str", 0);
}

// libllama sizes fixed arrays and divides by these.
void check_shape(const GgufFile & file, const std::string & architecture) {
    constexpr uint32_t kMaxLayers = 512;
    const std::string prefix = architecture + ".";
    const uint32_t n_layer = file.get_u32(prefix + "block_count");
    if (n_layer == 0 || n_layer > kMaxLayers) {
        fail(file, "has " + std::to_string(n_layer) + " layers, expected 1 to " + std::to_string(kMaxLayers));
    }
    if (file.get_u32(prefix + "embedding_length") == 0) {
        fail(file, "has an embedding width of 0");
    }
    if (file.has(prefix + "attention.head_count")) {
        for (const uint32_t n_head : file.get_u32_per_layer(prefix + "attention.head_count", n_layer)) {
            if (n_head == 0) {
                fail(file, "has a layer without attention heads");
            }
        }
    }
}

}  // namespace

TextModel::TextModel(const GgufFile & file) {
    ensure_upstream();
    const std::string architecture = file.get_str("general.architecture");
    if (architecture == "clip") {
        fail(file, "is a vision encoder (architecture 'clip'), expected a language model");
    }
    check_shape(file, architecture);
    check_vocabulary(file);
    own_template_ = file.get_str("tokenizer.chat_template", "");

    llama_model_params params = llama_model_default_params();
    params.no_alloc = true;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.n_gpu_layers = 0;
    params.progress_callback = [](float, void *) { return true; };  // the default one prints dots
    const UpstreamErrors errors;
    try {
        model_ = llama_model_load_from_file(file.path().c_str(), params);
    } catch (const std::exception & e) {
        fail(file, std::string("cannot be read by libllama: ") + e.what());
    }
    if (model_ == nullptr) {
        fail(file, "cannot be read by libllama as a model of architecture '" + architecture + "': " + errors.text());
    }
    // Tokenizing with add_special asserts that these exist.
    const bool lost_bos = llama_vocab_get_add_bos(vocab()) && llama_vocab_bos(vocab()) == LLAMA_TOKEN_NULL;
    const bool lost_eos = llama_vocab_get_add_eos(vocab()) && llama_vocab_eos(vocab()) == LLAMA_TOKEN_NULL;
    if (lost_bos || lost_eos) {
        llama_model_free(std::exchange(model_, nullptr));
        fail(file, std::string("wants a ") + (lost_bos ? "BOS" : "EOS") + " token that its vocabulary does not have");
    }
}

TextModel::~TextModel() {
    if (model_ != nullptr) {
        llama_model_free(model_);
    }
}

TextModel::TextModel(TextModel && other) noexcept
    : model_(std::exchange(other.model_, nullptr)), own_template_(std::move(other.own_template_)) {}

TextModel & TextModel::operator=(TextModel && other) noexcept {
    std::swap(model_, other.model_);
    std::swap(own_template_, other.own_template_);
    return *this;
}

const llama_vocab * TextModel::vocab() const {
    return llama_model_get_vocab(model_);
}

int32_t TextModel::n_vocab() const {
    return llama_vocab_n_tokens(vocab());
}

int32_t TextModel::n_embd() const {
    return llama_model_n_embd_inp(model_);
}

bool TextModel::uses_mrope() const {
    const llama_rope_type type = llama_model_rope_type(model_);
    return type == LLAMA_ROPE_TYPE_MROPE || type == LLAMA_ROPE_TYPE_IMROPE;
}

int32_t TextModel::bos() const {
    return llama_vocab_bos(vocab());
}

bool TextModel::adds_bos() const {
    return llama_vocab_get_add_bos(vocab());
}

bool TextModel::is_eog(int32_t token) const {
    return token >= 0 && token < n_vocab() && llama_vocab_is_eog(vocab(), token);
}

const std::string & TextModel::own_template() const {
    return own_template_;
}

std::vector<int32_t> TextModel::tokenize(std::string_view text, bool add_special, bool parse_special) const {
    // Every token has at least one byte; BOS and EOS come on top.
    constexpr size_t kMost = static_cast<size_t>(std::numeric_limits<int32_t>::max()) - 2;
    if (text.size() > kMost) {
        throw Error(ErrorCode::too_large, "the text has " + std::to_string(text.size()) + " bytes, at most " +
                                              std::to_string(kMost) + " can be tokenized");
    }
    std::vector<int32_t> tokens(text.size() + 2);
    const auto run = [&] {
        return llama_tokenize(vocab(), text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                              static_cast<int32_t>(tokens.size()), add_special, parse_special);
    };
    try {
        int32_t n = run();
        if (n < 0 && n != std::numeric_limits<int32_t>::min()) {
            tokens.resize(static_cast<size_t>(-n));
            n = run();
        }
        if (n < 0) {
            throw Error(ErrorCode::too_large,
                        "the text of " + std::to_string(text.size()) + " bytes gives too many tokens");
        }
        tokens.resize(static_cast<size_t>(n));
    } catch (const Error &) {
        throw;
    } catch (const std::exception & e) {
        throw Error(ErrorCode::bad_input, std::string("the text cannot be tokenized by this vocabulary: ") + e.what());
    }
    return tokens;
}

std::string TextModel::piece(int32_t token, bool special) const {
    if (token < 0 || token >= n_vocab()) {
        throw Error(ErrorCode::invalid_argument,
                    "token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(n_vocab()));
    }
    std::string text(32, '\0');
    const auto run = [&] {
        return llama_token_to_piece(vocab(), token, text.data(), static_cast<int32_t>(text.size()), 0, special);
    };
    int32_t n = run();
    if (n < 0) {
        text.resize(static_cast<size_t>(-n));
        n = run();
    }
    text.resize(static_cast<size_t>(std::max(n, 0)));
    return text;
}

std::string TextModel::detokenize(std::span<const int32_t> tokens, bool special) const {
    std::string text;
    for (const int32_t token : tokens) {
        text += piece(token, special);
    }
    return text;
}

}  // namespace kvsieve
