// SPDX-License-Identifier: MIT
// libllama and libmtmd as the reference of parity tests: same files, same process, their own KV cache and graphs.
#pragma once

#include <ggml.h>
#include <llama.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct mtmd_context;

namespace kvsieve::test {

/// What stands for an image in a text given to libmtmd.
[[nodiscard]] std::string mtmd_marker();

/// A model with its weights, and the vision encoder where `mmproj` is not empty. Throws std::runtime_error.
class ReferenceModel {
  public:
    explicit ReferenceModel(const std::filesystem::path & model, const std::filesystem::path & mmproj = {},
                            int32_t n_threads = 2);
    ~ReferenceModel();
    ReferenceModel(const ReferenceModel &) = delete;
    ReferenceModel & operator=(const ReferenceModel &) = delete;

    [[nodiscard]] llama_model * handle() const { return model_; }
    [[nodiscard]] mtmd_context * vision() const { return vision_; }
    [[nodiscard]] int32_t n_threads() const { return n_threads_; }
    [[nodiscard]] int32_t n_vocab() const;
    [[nodiscard]] std::vector<int32_t> tokenize(const std::string & text, bool add_special) const;
    [[nodiscard]] bool is_eog(int32_t token) const;

  private:
    llama_model * model_ = nullptr;
    mtmd_context * vision_ = nullptr;
    int32_t n_threads_ = 0;
};

/// One sequence of libllama with its own cache, in micro-batches of 512 tokens.
class ReferenceContext {
  public:
    ReferenceContext(const ReferenceModel & model, bool flash_attention, ggml_type kv_type = GGML_TYPE_F16,
                     uint32_t n_ctx = 4096);
    ~ReferenceContext();
    ReferenceContext(const ReferenceContext &) = delete;
    ReferenceContext & operator=(const ReferenceContext &) = delete;

    /// Puts tokens behind everything so far; the last one's logits [n_vocab].
    std::vector<float> feed(std::span<const int32_t> tokens);
    /// The same for a text with libmtmd's default marker at the image's place, images encoded by libmtmd.
    std::vector<float> feed(const std::string & text, const std::filesystem::path & image, bool add_special);
    /// The same for embeddings [n][n_embd].
    std::vector<float> feed_embeddings(std::span<const float> embeddings, int32_t n_embd);
    void reset();
    [[nodiscard]] int32_t n_past() const { return n_past_; }

  private:
    std::vector<float> last_logits() const;

    const ReferenceModel & model_;
    llama_context * context_ = nullptr;
    int32_t n_past_ = 0;
};

}  // namespace kvsieve::test
