// SPDX-License-Identifier: MIT
// A picture of which visual tokens a plan keeps.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "canvas.h"
#include "kvsieve/engine.h"
#include "kvsieve/policy.h"

/// How an image becomes the pixels that the token grid lies over.
enum class EncoderView {
    stretched,  ///< the whole image fills the grid
    padded,     ///< scaled to fit, centred, and padded in LLaVA's mean colour
};

/// From the projector that the mmproj file names, as libmtmd prepares images for it.
[[nodiscard]] EncoderView encoder_view(const std::filesystem::path & mmproj);

/// The image as the encoder saw it, `width` x `height` pixels.
[[nodiscard]] Canvas view_of(const Canvas & image, EncoderView view, int width, int height);

/// How many sets of rows keep each visual token of one image.
struct KeptTokens {
    int n_set = 1;                         ///< sets per layer: 1, or the KV heads of a per-head plan
    std::vector<std::vector<int>> layers;  ///< [L][n_tokens], 0 .. n_set
    /// Tokens that one layer keeps, averaged over its sets.
    [[nodiscard]] double mean_kept(size_t il) const;
};

/// Visual tokens only: text between the tiles of an image is left out.
[[nodiscard]] KeptTokens kept_tokens(const kvsieve::Plan & plan, const kvsieve::PromptShape & prompt,
                                     const kvsieve::ImagePlace & place);

struct OverlayImage {
    Canvas pixels;
    kvsieve::ImagePlace place;
};

/// One block of rows for each image: a large heat map of how many layers keep each token, and one panel for each
/// layer with dropped tokens dimmed. Where the grid is not known: one strip for each layer, and a note.
[[nodiscard]] Canvas draw_overlay(const std::vector<OverlayImage> & images, const kvsieve::Plan & plan,
                                  const kvsieve::PromptShape & prompt, EncoderView view, const std::string & title);
