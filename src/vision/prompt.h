// SPDX-License-Identifier: MIT
// A prompt as the decoder takes it: token ids, image embeddings, positions and the modality of every token.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/text_model.h"

namespace kvsieve {

/// What a user writes where an image stands.
inline constexpr std::string_view kUserImageMarker = "<image>";
/// What stands in the text for an image after place_images(); control characters keep it apart from any text of
/// users, so a literal "<__media__>" or "<image>" elsewhere stays text.
inline constexpr std::string_view kImageMarker = "\x01kvsieve:image\x02";

/// A user's text with kImageMarker at the images' places: at every `<image>`, in order, or, where the text has
/// none, all before the text. Throws Error{invalid_argument} stating both counts where they differ.
[[nodiscard]] std::string place_images(std::string_view user_text, size_t n_images);

/// A part of an encoded image: tokens that the model wants around or between visual ones, or visual tokens.
struct ImageSegment {
    std::vector<int32_t> tokens;  ///< text part; empty for a visual part
    int32_t n_visual = 0;         ///< visual tokens; 0 for a text part
    std::vector<float> embd;      ///< [n_visual][n_embd]
    /// Relative to the segment's first position, with M-RoPE only: (time, y, x) of each visual token.
    std::vector<std::array<int32_t, 3>> mrope;
    int32_t n_position = 0;  ///< positions that the segment takes (M-RoPE: the larger side of the grid)
};

/// An image as the decoder sees it; made once by VisionEncoder::encode() and good for any number of prompts.
struct EncodedImage {
    std::string name;
    std::string id;                 ///< Image::id
    int32_t width = 0, height = 0;  ///< pixels
    int32_t n_embd = 0;
    int32_t n_visual = 0;    ///< visual tokens of all segments
    int32_t nx = 0, ny = 0;  ///< token grid, row by row; nx = n_visual, ny = 1 where it is not known
    bool grid_known = false;
    bool non_causal = false;  ///< the model wants the image's tokens to attend to each other both ways
    std::vector<ImageSegment> segments;
    double encode_ms = 0;
};

/// Where an image stands in a prompt.
struct PromptImage {
    std::shared_ptr<const EncodedImage> image;
    int32_t first_token = 0;  ///< index of its first visual token
    int32_t n_tokens = 0;     ///< up to its last visual token, with what stands between them
    int32_t first_position = 0;
};

/// A run of visual tokens that stand together.
struct VisualRun {
    int32_t first_token = 0;
    int32_t n_tokens = 0;
    const float * embd = nullptr;  ///< [n_tokens][n_embd]; owned by the prompt's images
    int32_t image = 0;             ///< index in Prompt::images
};

struct Prompt {
    std::vector<int32_t> tokens;       ///< [T]; -1 for a visual token
    std::vector<uint8_t> visual_mask;  ///< [T]; 1 = visual
    /// [n_pos_per_token][T], section by section as ggml's multi-section RoPE takes them: the plain position, or
    /// with M-RoPE time, y, x and 0.
    std::vector<int32_t> positions;
    int32_t n_pos_per_token = 1;  ///< 1 or 4
    int32_t next_position = 0;    ///< of the token behind the prompt
    int32_t n_visual = 0;
    std::vector<VisualRun> runs;  ///< ascending
    std::vector<PromptImage> images;

    [[nodiscard]] int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
    [[nodiscard]] int32_t n_text() const { return n_tokens() - n_visual; }
};

/// `rendered`: the text behind the chat template, with kImageMarker at the images' places. Special tokens are
/// read in all of it and each stretch between images is tokenized by itself, as llama-mtmd-cli does;
/// `add_special` puts BOS in front (first turn). Throws Error{invalid_argument} where markers and images differ
/// in number, or an image was encoded for another width.
[[nodiscard]] Prompt build_prompt(const TextModel & text, std::string_view rendered,
                                  std::span<const std::shared_ptr<const EncodedImage>> images, bool add_special,
                                  int32_t first_position = 0);

/// A prompt of given tokens.
[[nodiscard]] Prompt build_prompt(const TextModel & text, std::span<const int32_t> tokens, int32_t first_position = 0);

}  // namespace kvsieve
