// SPDX-License-Identifier: MIT
#include "vision/prompt.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "vision/small_models.h"

namespace kvsieve {
namespace {

using test::expect_error;

const std::string kMark{kImageMarker};

const TextModel & model() {
    static const TextModel text{GgufFile(std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf")};
    return text;
}

/// An image of two visual runs with one text token between them, as models that cut images into tiles have.
std::shared_ptr<const EncodedImage> tiled_image(int32_t n_embd) {
    auto image = std::make_shared<EncodedImage>();
    image->name = "tiled";
    image->n_embd = n_embd;
    image->n_visual = 5;
    const auto visual = [&](int32_t n, float value) {
        ImageSegment segment;
        segment.n_visual = n;
        segment.n_position = n;
        segment.embd.assign(static_cast<size_t>(n) * static_cast<size_t>(n_embd), value);
        return segment;
    };
    ImageSegment text;
    text.tokens = {7};
    text.n_position = 1;
    image->segments = {text, visual(2, 1.0F), text, visual(3, 2.0F), text};
    return image;
}

TEST(PlaceImages, PutsImagesBeforeTextOrAtTheirMarks) {
    EXPECT_EQ(place_images("What is it?", 0), "What is it?");
    EXPECT_EQ(place_images("What is it?", 1), kMark + "What is it?");
    EXPECT_EQ(place_images("Compare.", 2), kMark + kMark + "Compare.");
    EXPECT_EQ(place_images("First <image>, then <image>.", 2), "First " + kMark + ", then " + kMark + ".");
    EXPECT_EQ(place_images("", 1), kMark);
}

TEST(PlaceImages, RefusesAnotherNumberOfMarks) {
    const auto refused = [](const std::string & text, size_t n, const std::string & part) {
        expect_error(ErrorCode::invalid_argument, part, [&] { (void)place_images(text, n); });
    };
    refused("a <image> b", 0, "the text has 1 <image> mark, but 0 images were given");
    refused("a <image> b", 2, "the text has 1 <image> mark, but 2 images were given");
    refused("<image><image>", 1, "the text has 2 <image> marks, but 1 image was given");
    refused("a" + kMark, 1, "control sequence");
}

TEST(BuildPrompt, TextAlone) {
    const Prompt prompt = build_prompt(model(), "the <__media__> <image>", {}, true, 0);
    const std::vector<int32_t> expected = model().tokenize("the <__media__> <image>", true, true);
    EXPECT_EQ(prompt.tokens, expected) << "marks of libmtmd and of users are plain text here";
    EXPECT_EQ(prompt.n_visual, 0);
    EXPECT_EQ(prompt.n_text(), prompt.n_tokens());
    EXPECT_EQ(prompt.next_position, prompt.n_tokens());
    EXPECT_EQ(prompt.positions.size(), expected.size());
    EXPECT_EQ(prompt.n_pos_per_token, 1);
    const Prompt tokens = build_prompt(model(), expected, 100);
    EXPECT_EQ(tokens.tokens, expected);
    EXPECT_EQ(tokens.positions.front(), 100);
    EXPECT_EQ(tokens.next_position, 100 + tokens.n_tokens());
    EXPECT_EQ(build_prompt(model(), "", {}, false).n_tokens(), 0);
    expect_error(ErrorCode::invalid_argument, "outside the vocabulary",
                 [] { (void)build_prompt(model(), std::vector<int32_t>{-1}); });
}

TEST(BuildPrompt, PlacesEveryPartOfAnImage) {
    const auto image = tiled_image(model().n_embd());
    const std::vector<std::shared_ptr<const EncodedImage>> images = {image, image};
    const Prompt prompt = build_prompt(model(), "the" + kMark + kMark + "the", images, false, 10);
    const auto the = static_cast<int32_t>(model().tokenize("the", false, true).size());
    ASSERT_EQ(prompt.n_tokens(), 2 * the + 2 * 8);
    EXPECT_EQ(prompt.n_visual, 10);
    ASSERT_EQ(prompt.images.size(), 2U);
    EXPECT_EQ(prompt.images[0].first_token, the + 1);
    EXPECT_EQ(prompt.images[0].n_tokens, 6);
    EXPECT_EQ(prompt.images[0].first_position, 10 + the + 1);
    EXPECT_EQ(prompt.images[1].first_token, the + 8 + 1);
    ASSERT_EQ(prompt.runs.size(), 4U);
    EXPECT_EQ(prompt.runs[1].first_token, the + 4);
    EXPECT_EQ(prompt.runs[1].n_tokens, 3);
    EXPECT_EQ(prompt.runs[1].embd[0], 2.0F);
    EXPECT_EQ(prompt.runs[2].image, 1);
    for (int32_t t = 0; t < prompt.n_tokens(); ++t) {
        const auto i = static_cast<size_t>(t);
        EXPECT_EQ(prompt.visual_mask[i] == 1, prompt.tokens[i] == -1);
        EXPECT_EQ(prompt.positions[i], 10 + t);
    }
    for (const VisualRun & run : prompt.runs) {
        for (int32_t t = run.first_token; t < run.first_token + run.n_tokens; ++t) {
            EXPECT_EQ(prompt.tokens[static_cast<size_t>(t)], -1);
        }
    }
    EXPECT_EQ(prompt.next_position, 10 + prompt.n_tokens());
}

TEST(BuildPrompt, RefusesImagesThatDoNotFit) {
    const std::vector<std::shared_ptr<const EncodedImage>> one = {tiled_image(model().n_embd())};
    expect_error(ErrorCode::invalid_argument, "the prompt has 0 places for images, but 1 image was given",
                 [&] { (void)build_prompt(model(), "the", one, true); });
    expect_error(ErrorCode::invalid_argument, "the prompt has 1 place for images, but 0 images were given",
                 [&] { (void)build_prompt(model(), kMark, {}, true); });
    const std::vector<std::shared_ptr<const EncodedImage>> other = {tiled_image(model().n_embd() + 1)};
    expect_error(ErrorCode::invalid_argument, "expected the model's " + std::to_string(model().n_embd()),
                 [&] { (void)build_prompt(model(), kMark, other, true); });
}

// A 3 x 2 grid between two text tokens: the image takes max(3, 2) positions.
TEST(BuildPrompt, MropePositionsHaveFourSections) {
    const test::TempDir dir;
    test::write_mrope_model(dir / "mrope.gguf");
    const TextModel text{GgufFile(dir / "mrope.gguf")};
    ASSERT_TRUE(text.uses_mrope());
    auto image = std::make_shared<EncodedImage>();
    image->n_embd = text.n_embd();
    image->n_visual = 6;
    ImageSegment segment;
    segment.n_visual = 6;
    segment.n_position = 3;
    segment.embd.resize(6 * static_cast<size_t>(text.n_embd()));
    for (int32_t i = 0; i < 6; ++i) {
        segment.mrope.push_back({0, i / 3, i % 3});
    }
    image->segments = {segment};
    const std::vector<std::shared_ptr<const EncodedImage>> images = {image};
    const Prompt prompt = build_prompt(text, "a" + kMark + "b", images, false, 5);
    ASSERT_EQ(prompt.n_tokens(), 8);
    EXPECT_EQ(prompt.n_pos_per_token, 4);
    const std::vector<int32_t> expected = {5, 6, 6, 6, 6, 6, 6, 9,  // time
                                           5, 6, 6, 6, 7, 7, 7, 9,  // y
                                           5, 6, 7, 8, 6, 7, 8, 9,  // x
                                           0, 0, 0, 0, 0, 0, 0, 0};
    EXPECT_EQ(prompt.positions, expected);
    EXPECT_EQ(prompt.next_position, 10);
    EXPECT_EQ(prompt.images[0].first_position, 6);
}

}  // namespace
}  // namespace kvsieve
