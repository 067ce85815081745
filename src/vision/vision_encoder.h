// SPDX-License-Identifier: MIT
// Images to embeddings of the language model, through libmtmd.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "gguf/gguf_file.h"
#include "text/text_model.h"
#include "vision/image.h"
#include "vision/prompt.h"

namespace kvsieve {

/// Loads an mmproj file on the CPU. encode() may be called from several threads; calls are serialised inside.
/// The TextModel must outlive it.
class VisionEncoder {
  public:
    /// Checks the file (architecture, projector, widths, tensors) before libmtmd sees it: Error{bad_input}.
    VisionEncoder(const std::filesystem::path & mmproj, const TextModel & text, int32_t n_threads);
    ~VisionEncoder();
    VisionEncoder(VisionEncoder &&) noexcept;
    VisionEncoder & operator=(VisionEncoder &&) noexcept;

    /// Throws Error{bad_input} for an image that this model cannot take and Error{runtime} if computing fails.
    [[nodiscard]] std::shared_ptr<const EncodedImage> encode(const Image & image) const;

    [[nodiscard]] const std::string & projector() const;  ///< clip.projector_type, e.g. "mlp"
    [[nodiscard]] int32_t n_embd() const;                 ///< width of the embeddings
    [[nodiscard]] std::string fingerprint() const;        ///< of the mmproj file

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
