// SPDX-License-Identifier: MIT
// Images to embeddings of the language model, through libmtmd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "gguf/gguf_file.h"
#include "text/text_model.h"
#include "vision/image.h"
#include "vision/prompt.h"

namespace kvsieve {

/// Bytes of embeddings that an encoder remembers.
inline constexpr size_t kImageMemoryBytes = size_t{64} << 20U;

/// Loads an mmproj file on the CPU. count_tokens() and encode() may be called from several threads; calls are
/// serialised inside. The TextModel must outlive it.
class VisionEncoder {
  public:
    /// Checks the file (architecture, projector, widths, tensors) before libmtmd sees it: Error{bad_input}.
    VisionEncoder(const std::filesystem::path & mmproj, const TextModel & text, int32_t n_threads,
                  size_t memory_bytes = kImageMemoryBytes);
    ~VisionEncoder();
    VisionEncoder(VisionEncoder &&) noexcept;
    VisionEncoder & operator=(VisionEncoder &&) noexcept;

    /// Tokens that the image will take in a prompt, those around visual ones included. Preprocesses the image only.
    /// Throws as encode().
    [[nodiscard]] int32_t count_tokens(const Image & image) const;
    /// Throws Error{bad_input} for an image that this model cannot take and Error{runtime} if computing fails.
    /// The last images, as many as fit `memory_bytes`, are remembered by id and name: asked again, they cost nothing.
    [[nodiscard]] std::shared_ptr<const EncodedImage> encode(const Image & image) const;

    [[nodiscard]] const std::string & projector() const;  ///< clip.projector_type, e.g. "mlp"
    [[nodiscard]] int32_t n_embd() const;                 ///< width of the embeddings
    [[nodiscard]] std::string fingerprint() const;        ///< of the mmproj file

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
