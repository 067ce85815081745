// SPDX-License-Identifier: MIT
#include "overlay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "canvas.h"
#include "vision/image.h"

namespace {

using kvsieve::ImagePlace;
using kvsieve::LayerPlan;
using kvsieve::Plan;
using kvsieve::PromptShape;

constexpr Color kRed{200, 30, 40};
constexpr Color kPad{122, 116, 104};
constexpr Color kLight{240, 240, 240};

/// Tokens: 3 of text, an image of 2 x 2, 1 of text, an image of 3 x 1.
PromptShape prompt() {
    PromptShape shape;
    shape.n_layer = 2;
    shape.n_tokens = 11;
    shape.visual_mask = {0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1};
    return shape;
}
const ImagePlace kFirst{
    .name = "a/first.png", .first_position = 3, .n_tokens = 4, .nx = 2, .ny = 2, .grid_known = true};
const ImagePlace kSecond{
    .name = "second.png", .first_position = 8, .n_tokens = 3, .nx = 3, .ny = 1, .grid_known = true};

Plan plan(std::vector<std::vector<std::vector<int32_t>>> kept) {
    Plan out;
    for (auto & layer : kept) {
        out.layers.push_back(LayerPlan{std::move(layer)});
    }
    return out;
}

int brightness(const Color & color) {
    return std::accumulate(color.begin(), color.end(), 0);
}

TEST(KeptTokens, AreCountedByImage) {
    const Plan kept = plan({{{0, 3, 6, 7, 9}}, {{4, 5, 8, 9, 10}}});
    EXPECT_EQ(kept_tokens(kept, prompt(), kFirst).layers, (std::vector<std::vector<int>>{{1, 0, 0, 1}, {0, 1, 1, 0}}));
    EXPECT_EQ(kept_tokens(kept, prompt(), kSecond).layers, (std::vector<std::vector<int>>{{0, 1, 0}, {1, 1, 1}}));
    EXPECT_EQ(kept_tokens(kept, prompt(), kFirst).mean_kept(0), 2.0);
}

TEST(KeptTokens, OfPlansPerHeadCountHeads) {
    const KeptTokens kept = kept_tokens(plan({{{3, 4}, {3, 6}}, {{3}, {5}}}), prompt(), kFirst);
    EXPECT_EQ(kept.n_set, 2);
    EXPECT_EQ(kept.layers, (std::vector<std::vector<int>>{{2, 1, 0, 1}, {1, 0, 1, 0}}));
    EXPECT_EQ(kept.mean_kept(0), 2.0);
}

TEST(KeptTokens, LeaveOutTextBetweenTiles) {
    const ImagePlace both{.name = "tiles", .first_position = 3, .n_tokens = 8, .nx = 8, .ny = 1};
    const KeptTokens kept = kept_tokens(plan({{{6, 7, 8}}}), prompt(), both);
    EXPECT_EQ(kept.layers, (std::vector<std::vector<int>>{{0, 0, 0, 1, 1, 0, 0}}));
}

TEST(View, WideImagesArePaddedAboveAndBelow) {
    const Canvas image(20, 10, kRed);
    const Canvas view = view_of(image, EncoderView::padded, 40, 40);
    EXPECT_EQ(view.at(20, 9), kPad);
    EXPECT_EQ(view.at(0, 10), kRed);
    EXPECT_EQ(view.at(39, 29), kRed);
    EXPECT_EQ(view.at(20, 30), kPad);
    EXPECT_EQ(view_of(image, EncoderView::stretched, 40, 40).at(20, 0), kRed);
}

TEST(View, HighImagesArePaddedLeftAndRight) {
    const Canvas view = view_of(Canvas(10, 20, kRed), EncoderView::padded, 40, 40);
    EXPECT_EQ(view.at(9, 20), kPad);
    EXPECT_EQ(view.at(10, 0), kRed);
    EXPECT_EQ(view.at(30, 20), kPad);
}

TEST(View, TheEmbeddedModelPads) {
    EXPECT_EQ(encoder_view(std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-mmproj-f16.gguf"),
              EncoderView::padded);
}

/// Largest brightness in each quarter of the square panel whose top left corner is at (x, y).
std::vector<int> quarters(const Canvas & picture, int x, int y, int side) {
    std::vector<int> out;
    for (const auto & [dx, dy] : {std::pair(1, 1), std::pair(3, 1), std::pair(1, 3), std::pair(3, 3)}) {
        out.push_back(brightness(picture.at(x + dx * side / 4, y + dy * side / 4)));
    }
    return out;
}

TEST(Overlay, KeptTokensAreBrightWhereTheyAre) {
    const std::vector<OverlayImage> images{{Canvas(64, 64, kLight), kFirst}};
    const Plan kept = plan({{{3, 6}}, {{4}}});
    const Canvas picture = draw_overlay(images, kept, prompt(), EncoderView::padded, "title");
    // Layers stand in the right part, one below the other; each panel is 216 pixels of 2 x 2 cells.
    const int x = picture.width() - 20 - 216;
    const int top = 20 + 20 + 12 + 28 + 20;
    const int below = top + 216 + 20 + 12;
    const std::vector<int> first = quarters(picture, x, top, 216);
    const std::vector<int> second = quarters(picture, x, below, 216);
    const int bright = 3 * 240;
    EXPECT_EQ(first[0], bright);
    EXPECT_EQ(first[3], bright);
    EXPECT_LT(first[1], bright / 2);
    EXPECT_LT(first[2], bright / 2);
    EXPECT_EQ(second[1], bright);
    EXPECT_LT(std::max({second[0], second[2], second[3]}), bright / 2);
}

TEST(Overlay, UnknownGridsAreStrips) {
    ImagePlace place = kFirst;
    place.nx = 4;
    place.ny = 1;
    place.grid_known = false;
    const Plan kept = plan({{{3}}, {{4}}});
    const Canvas strip = draw_overlay({{Canvas(64, 64, kRed), place}}, kept, prompt(), EncoderView::stretched, "t");
    const Canvas grid = draw_overlay({{Canvas(64, 64, kRed), kFirst}}, kept, prompt(), EncoderView::stretched, "t");
    EXPECT_LT(strip.height(), grid.height());
}

TEST(Overlay, SeveralImagesStandBelowEachOther) {
    const Plan kept = plan({{{3, 9}}, {{4, 8}}});
    const OverlayImage first{Canvas(64, 64, kRed), kFirst};
    const OverlayImage second{Canvas(90, 30, kRed), kSecond};
    const int one = draw_overlay({first}, kept, prompt(), EncoderView::padded, "t").height();
    EXPECT_GT(draw_overlay({first, second}, kept, prompt(), EncoderView::padded, "t").height(), one + 100);
}

TEST(Canvas, PngHoldsThePixels) {
    Canvas canvas(7, 5, Color{1, 2, 3});
    canvas.set(6, 4, kRed);
    canvas.fill(-3, -3, 4, 4, {9, 9, 9});  // cut off at the border
    const std::string png = canvas.png();
    const std::vector<uint8_t> bytes(png.begin(), png.end());
    const kvsieve::Image image = kvsieve::decode_image(bytes, "canvas");
    ASSERT_EQ(image.width, 7);
    ASSERT_EQ(image.height, 5);
    EXPECT_EQ(image.rgb[0], 9);
    EXPECT_EQ(image.rgb[3], 1);
    EXPECT_EQ(image.rgb[(4 * 7 + 6) * 3], kRed[0]);
}

TEST(Canvas, TextIsDrawnInsideItsWidth) {
    Canvas canvas(200, 20);
    canvas.text(2, 2, 1, {255, 255, 255}, "layer 3 \xC3\xA9");
    int right = 0;
    for (int y = 0; y < 20; ++y) {
        for (int x = 0; x < 200; ++x) {
            right = canvas.at(x, y)[0] > 0 ? std::max(right, x) : right;
        }
    }
    EXPECT_GT(right, 20);
    EXPECT_LE(right, 2 + Canvas::text_width("layer 3 ?", 1));
}

}  // namespace
