// SPDX-License-Identifier: MIT
#include "vision/prompt.h"

#include <limits>
#include <utility>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

[[noreturn]] void fail(const std::string & what) {
    throw Error(ErrorCode::invalid_argument, what);
}

std::vector<std::string_view> split(std::string_view text, std::string_view mark) {
    std::vector<std::string_view> parts;
    for (size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark)) {
        parts.push_back(text.substr(0, at));
        text.remove_prefix(at + mark.size());
    }
    parts.push_back(text);
    return parts;
}

std::string plural(size_t n, const std::string & one) {
    return std::to_string(n) + " " + one + (n == 1 ? "" : "s");
}

/// Positions are gathered as four columns and stored as one or four sections in the end.
class PromptBuilder {
  public:
    PromptBuilder(bool mrope, int32_t n_embd, int32_t first_position)
        : mrope_(mrope), n_embd_(n_embd), position_(first_position) {}

    void add_text(std::span<const int32_t> tokens) {
        reserve(tokens.size());
        for (const int32_t token : tokens) {
            add(token, false, {position_, position_, position_});
            ++position_;
        }
    }

    void add_image(const std::shared_ptr<const EncodedImage> & image) {
        if (image->n_embd != n_embd_) {
            fail("image " + image->name + " was encoded to a width of " + std::to_string(image->n_embd) +
                 ", expected the model's " + std::to_string(n_embd_));
        }
        PromptImage place;
        place.image = image;
        bool first = true;
        for (const ImageSegment & segment : image->segments) {
            if (segment.n_visual == 0) {
                add_text(segment.tokens);
                continue;
            }
            if (std::exchange(first, false)) {
                place.first_token = prompt_.n_tokens();
                place.first_position = position_;
            }
            add_visual(segment);
            place.n_tokens = prompt_.n_tokens() - place.first_token;
        }
        prompt_.images.push_back(std::move(place));
    }

    Prompt finish() {
        prompt_.next_position = position_;
        prompt_.n_pos_per_token = mrope_ ? 4 : 1;
        prompt_.positions = std::move(columns_[0]);
        if (mrope_) {
            prompt_.positions.insert(prompt_.positions.end(), columns_[1].begin(), columns_[1].end());
            prompt_.positions.insert(prompt_.positions.end(), columns_[2].begin(), columns_[2].end());
            prompt_.positions.resize(4 * prompt_.tokens.size(), 0);
        }
        return std::move(prompt_);
    }

  private:
    // Tokens and positions are 32-bit; a prompt near that has been refused by any model's context before.
    void reserve(size_t n) const {
        if (n > static_cast<size_t>(std::numeric_limits<int32_t>::max() - position_) - prompt_.tokens.size()) {
            throw Error(ErrorCode::too_large, "the prompt has more than 2^31 tokens");
        }
    }

    void add(int32_t token, bool visual, std::array<int32_t, 3> at) {
        prompt_.tokens.push_back(token);
        prompt_.visual_mask.push_back(visual ? 1 : 0);
        columns_[0].push_back(at[0]);
        if (mrope_) {
            columns_[1].push_back(at[1]);
            columns_[2].push_back(at[2]);
        }
    }

    void add_visual(const ImageSegment & segment) {
        reserve(static_cast<size_t>(segment.n_visual));
        prompt_.runs.push_back(
            {prompt_.n_tokens(), segment.n_visual, segment.embd.data(), static_cast<int32_t>(prompt_.images.size())});
        for (int32_t i = 0; i < segment.n_visual; ++i) {
            std::array<int32_t, 3> at = {position_ + i, position_ + i, position_ + i};
            if (mrope_) {
                const std::array<int32_t, 3> & relative = segment.mrope.at(static_cast<size_t>(i));
                at = {position_ + relative[0], position_ + relative[1], position_ + relative[2]};
            }
            add(-1, true, at);
        }
        prompt_.n_visual += segment.n_visual;
        position_ += segment.n_position;
    }

    Prompt prompt_;
    bool mrope_;
    int32_t n_embd_;
    int32_t position_;
    std::array<std::vector<int32_t>, 3> columns_;
};

}  // namespace

std::string place_images(std::string_view user_text, size_t n_images) {
    if (user_text.find(kImageMarker) != std::string_view::npos) {
        fail("the text contains the control sequence that marks an image's place inside kvsieve; remove it");
    }
    const std::vector<std::string_view> parts = split(user_text, kUserImageMarker);
    const size_t n_marks = parts.size() - 1;
    std::string out;
    if (n_marks == 0) {
        for (size_t i = 0; i < n_images; ++i) {
            out += kImageMarker;
        }
        return out += user_text;
    }
    if (n_marks != n_images) {
        fail("the text has " + plural(n_marks, "<image> mark") + ", but " + plural(n_images, "image") +
             (n_images == 1 ? " was given" : " were given"));
    }
    out += parts.front();
    for (size_t i = 1; i < parts.size(); ++i) {
        out += kImageMarker;
        out += parts[i];
    }
    return out;
}

Prompt build_prompt(const TextModel & text, std::string_view rendered,
                    std::span<const std::shared_ptr<const EncodedImage>> images, bool add_special,
                    int32_t first_position) {
    const std::vector<std::string_view> parts = split(rendered, kImageMarker);
    if (parts.size() - 1 != images.size()) {
        fail("the prompt has " + plural(parts.size() - 1, "place") + " for images, but " +
             plural(images.size(), "image") + (images.size() == 1 ? " was given" : " were given"));
    }
    PromptBuilder builder(text.uses_mrope(), text.n_embd(), first_position);
    if (add_special && text.adds_bos()) {
        const int32_t bos = text.bos();
        builder.add_text({&bos, 1});
    }
    for (size_t i = 0; i < parts.size(); ++i) {
        builder.add_text(text.tokenize(parts[i], false, true));
        if (i < images.size()) {
            builder.add_image(images[i]);
        }
    }
    return builder.finish();
}

Prompt build_prompt(const TextModel & text, std::span<const int32_t> tokens, int32_t first_position) {
    for (const int32_t token : tokens) {
        if (token < 0 || token >= text.n_vocab()) {
            fail("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(text.n_vocab()));
        }
    }
    PromptBuilder builder(text.uses_mrope(), text.n_embd(), first_position);
    builder.add_text(tokens);
    return builder.finish();
}

}  // namespace kvsieve
