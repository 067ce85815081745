// SPDX-License-Identifier: MIT
#include "overlay.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "gguf/gguf_file.h"

namespace {

using kvsieve::ImagePlace;
using kvsieve::Plan;
using kvsieve::PromptShape;

constexpr Color kBackground{18, 20, 24};
constexpr Color kText{226, 228, 232};
constexpr Color kFaintText{150, 154, 162};
constexpr Color kLlavaPad{122, 116, 104};
constexpr int kGap = 12;     // between panels
constexpr int kMargin = 20;  // around everything
constexpr int kLabelHeight = 20;
constexpr int kPanelSide = 216;  // of a layer's panel, about
constexpr int kMaxColumns = 8;

/// From few layers to all of them: dark violet to light yellow ("inferno").
Color heat(double share) {
    static constexpr std::array<Color, 7> kStops{Color{4, 3, 18},     Color{58, 11, 92},  Color{120, 28, 109},
                                                 Color{182, 53, 86},  Color{229, 92, 48}, Color{251, 157, 7},
                                                 Color{252, 248, 164}};
    const double at = std::clamp(share, 0.0, 1.0) * (kStops.size() - 1);
    const auto below = std::min(static_cast<size_t>(at), kStops.size() - 2);
    return blend(kStops[below], kStops[below + 1], at - static_cast<double>(below));
}

Color gray(const Color & color) {
    const auto level = static_cast<uint8_t>((299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000);
    return {level, level, level};
}

Color dimmed(const Color & color) {
    return blend({10, 12, 18}, blend(gray(color), color, 0.15), 0.27);
}

/// Cells of the token grid, and the pixels of a panel that shows it.
struct Grid {
    int nx, ny;
    int cell_w, cell_h;
    [[nodiscard]] int width() const { return nx * cell_w; }
    [[nodiscard]] int height() const { return ny * cell_h; }
    [[nodiscard]] size_t token(int x, int y) const {
        return static_cast<size_t>(y / cell_h) * static_cast<size_t>(nx) + static_cast<size_t>(x / cell_w);
    }
};

Grid make_grid(const ImagePlace & place) {
    const int cell = std::max(4, kPanelSide / std::max(place.nx, place.ny));
    return {.nx = place.nx, .ny = place.ny, .cell_w = cell, .cell_h = cell};
}

std::string layer_label(const KeptTokens & kept, size_t il) {
    return fmt::format("layer {}  {:.0f}/{}", il, kept.mean_kept(il), kept.layers[il].size());
}

Canvas layer_panel(const Canvas & view, const Grid & grid, const std::vector<int> & kept, int n_set) {
    Canvas panel(grid.width(), grid.height());
    for (int y = 0; y < grid.height(); ++y) {
        for (int x = 0; x < grid.width(); ++x) {
            const Color color = view.at(x, y);
            panel.set(x, y, blend(dimmed(color), color, static_cast<double>(kept[grid.token(x, y)]) / n_set));
        }
    }
    return panel;
}

/// Sets that keep each token, over all layers, as a share of all sets.
std::vector<double> heat_of(const KeptTokens & kept) {
    std::vector<double> shares(kept.layers.empty() ? 0 : kept.layers[0].size());
    for (const std::vector<int> & layer : kept.layers) {
        std::transform(layer.begin(), layer.end(), shares.begin(), shares.begin(),
                       [](int n, double sum) { return sum + n; });
    }
    const auto n_all = static_cast<double>(kept.layers.size()) * kept.n_set;
    for (double & share : shares) {
        share /= n_all;
    }
    return shares;
}

Canvas heat_panel(const Canvas & view, const Grid & grid, const KeptTokens & kept) {
    const std::vector<double> shares = heat_of(kept);
    Canvas panel(grid.width(), grid.height());
    for (int y = 0; y < grid.height(); ++y) {
        for (int x = 0; x < grid.width(); ++x) {
            const double share = shares[grid.token(x, y)];
            panel.set(x, y, blend(blend({0, 0, 0}, gray(view.at(x, y)), 0.7), heat(share), 0.7));
        }
    }
    return panel;
}

void draw_legend(Canvas & canvas, int x, int y, int width, const KeptTokens & kept) {
    const int n_all = static_cast<int>(kept.layers.size()) * kept.n_set;
    const std::string most = fmt::format("{} {}", n_all, kept.n_set == 1 ? "layers" : "heads");
    const int from = x + Canvas::text_width("0", 2) + 8;
    const int to = x + width - Canvas::text_width(most, 2) - 8;
    for (int column = from; column < to; ++column) {
        canvas.fill(column, y, 1, 12, heat(static_cast<double>(column - from) / std::max(1, to - from - 1)));
    }
    canvas.text(x, y - 1, 2, kFaintText, "0");
    canvas.text(to + 8, y - 1, 2, kFaintText, most);
}

std::string image_label(const OverlayImage & image) {
    const ImagePlace & place = image.place;
    const std::string name = std::filesystem::path(place.name).filename().string();
    return place.grid_known ? fmt::format("{}  {} x {} tokens", name, place.nx, place.ny)
                            : fmt::format("{}  token grid not known: tokens in order", name);
}

/// An image whose grid is known: heat map on the left, layers on the right.
Canvas grid_block(const OverlayImage & image, const KeptTokens & kept, EncoderView view) {
    const Grid grid = make_grid(image.place);
    const Grid big{.nx = grid.nx, .ny = grid.ny, .cell_w = grid.cell_w * 2, .cell_h = grid.cell_h * 2};
    const auto n_layer = static_cast<int>(kept.layers.size());
    const int row_height = grid.height() + kLabelHeight + kGap;
    // At least two rows, which the heat map is as high as; then as wide as high, up to a limit.
    const int columns = std::clamp(static_cast<int>(std::ceil(std::sqrt(n_layer * 1.6))), 1,
                                   std::min(kMaxColumns, std::max(1, (n_layer + 1) / 2)));
    const int rows = (n_layer + columns - 1) / columns;
    const int left = big.width() + 2 * kGap;
    const int body = std::max(rows * row_height, big.height() + 2 * kLabelHeight + kGap);
    Canvas block(left + columns * (grid.width() + kGap) - kGap, kLabelHeight + 8 + body, kBackground);
    block.text(0, 0, 2, kText, image_label(image));
    const int top = kLabelHeight + 8;

    block.text(0, top, 2, kText, kept.n_set == 1 ? "layers that keep a token" : "KV heads that keep a token");
    block.draw(heat_panel(view_of(image.pixels, view, big.width(), big.height()), big, kept), 0, top + kLabelHeight);
    draw_legend(block, 0, top + kLabelHeight + big.height() + 10, big.width(), kept);

    const Canvas small = view_of(image.pixels, view, grid.width(), grid.height());
    const std::string widest = layer_label(kept, kept.layers.size() - 1) + "0";
    const int scale = Canvas::text_width(widest, 2) <= grid.width() ? 2 : 1;
    for (int il = 0; il < n_layer; ++il) {
        const auto layer = static_cast<size_t>(il);
        const int x = left + (il % columns) * (grid.width() + kGap);
        const int y = top + (il / columns) * row_height;
        block.text(x, y + (scale == 2 ? 0 : 6), scale, kText, layer_label(kept, layer));
        block.draw(layer_panel(small, grid, kept.layers[layer], kept.n_set), x, y + kLabelHeight);
    }
    return block;
}

/// An image whose grid is not known: a thumbnail, and the tokens of each layer side by side.
Canvas strip_block(const OverlayImage & image, const KeptTokens & kept) {
    constexpr int kRow = 12;
    constexpr int kThumb = 160;
    constexpr int kLabelWidth = 190;
    const auto n_layer = static_cast<int>(kept.layers.size());
    const auto n_token = static_cast<int>(kept.layers.empty() ? 0 : kept.layers[0].size());
    const int width = std::clamp(n_token, 640, 1600);
    const double scale = static_cast<double>(kThumb) / std::max(image.pixels.width(), image.pixels.height());
    const auto side = [&](int n) { return std::max(1, static_cast<int>(std::lround(n * scale))); };
    const Canvas thumb = image.pixels.resized(side(image.pixels.width()), side(image.pixels.height()));
    const int top = kLabelHeight + 8;
    Canvas block(kThumb + kGap + kLabelWidth + width, top + std::max(thumb.height(), (n_layer + 1) * kRow + 6),
                 kBackground);
    block.text(0, 0, 2, kText, image_label(image));
    block.draw(thumb, 0, top);
    const int left = kThumb + kGap + kLabelWidth;
    const auto draw_row = [&](int y, const std::string & label, const auto & share_of) {
        block.text(left - kLabelWidth, y + 1, 1, kFaintText, label);
        for (int x = 0; x < width; ++x) {
            const auto token = static_cast<size_t>(static_cast<int64_t>(x) * n_token / width);
            block.fill(left + x, y, 1, kRow - 2, heat(share_of(token)));
        }
    };
    for (int il = 0; il < n_layer; ++il) {
        const auto & layer = kept.layers[static_cast<size_t>(il)];
        draw_row(top + il * kRow, layer_label(kept, static_cast<size_t>(il)),
                 [&](size_t token) { return static_cast<double>(layer[token]) / kept.n_set; });
    }
    const std::vector<double> shares = heat_of(kept);
    draw_row(top + n_layer * kRow + 6, "all layers", [&](size_t token) { return shares[token]; });
    return block;
}

}  // namespace

EncoderView encoder_view(const std::filesystem::path & mmproj) {
    static constexpr std::array<std::string_view, 6> kPadded{"mlp", "mlp_norm", "ldp", "ldpv2", "adapter", "janus_pro"};
    const kvsieve::GgufFile file(mmproj);
    const std::string projector =
        file.get_str("clip.projector_type", file.get_str("clip.vision.projector_type", "mlp"));
    const bool padded = std::find(kPadded.begin(), kPadded.end(), projector) != kPadded.end();
    return padded ? EncoderView::padded : EncoderView::stretched;
}

Canvas view_of(const Canvas & image, EncoderView view, int width, int height) {
    if (view == EncoderView::stretched) {
        return image.resized(width, height);
    }
    // libmtmd's PAD_CEIL: sides rounded up, the border split evenly.
    const double scale =
        std::min(static_cast<double>(width) / image.width(), static_cast<double>(height) / image.height());
    const int w = std::min(width, static_cast<int>(std::ceil(image.width() * scale - 1e-6)));
    const int h = std::min(height, static_cast<int>(std::ceil(image.height() * scale - 1e-6)));
    Canvas out(width, height, kLlavaPad);
    out.draw(image.resized(std::max(w, 1), std::max(h, 1)), (width - w) / 2, (height - h) / 2);
    return out;
}

double KeptTokens::mean_kept(size_t il) const {
    return std::accumulate(layers[il].begin(), layers[il].end(), 0.0) / n_set;
}

KeptTokens kept_tokens(const Plan & plan, const PromptShape & prompt, const ImagePlace & place) {
    const auto first = static_cast<size_t>(place.first_position);
    const auto n = static_cast<size_t>(place.n_tokens);
    // Number of a visual token within its image, by position in the prompt; -1 elsewhere.
    std::vector<int> number(static_cast<size_t>(prompt.n_tokens), -1);
    int n_visual = 0;
    for (size_t i = first; i < first + n && i < number.size(); ++i) {
        if (prompt.visual_mask.at(i) != 0) {
            number[i] = n_visual++;
        }
    }
    KeptTokens kept;
    for (const kvsieve::LayerPlan & layer : plan.layers) {
        kept.n_set = std::max(kept.n_set, static_cast<int>(layer.kept.size()));
    }
    for (const kvsieve::LayerPlan & layer : plan.layers) {
        std::vector<int> & counts = kept.layers.emplace_back(static_cast<size_t>(n_visual), 0);
        for (int g = 0; g < kept.n_set; ++g) {
            for (const int32_t position : layer.of_head(g)) {
                const int token = number.at(static_cast<size_t>(position));
                if (token >= 0) {
                    ++counts[static_cast<size_t>(token)];
                }
            }
        }
    }
    return kept;
}

Canvas draw_overlay(const std::vector<OverlayImage> & images, const Plan & plan, const PromptShape & prompt,
                    EncoderView view, const std::string & title) {
    std::vector<Canvas> blocks;
    int width = Canvas::text_width(title, 2);
    int height = kMargin + kLabelHeight + kGap;
    for (const OverlayImage & image : images) {
        const KeptTokens kept = kept_tokens(plan, prompt, image.place);
        const size_t n_token = kept.layers.empty() ? 0 : kept.layers[0].size();
        const bool has_grid = image.place.grid_known &&
                              static_cast<size_t>(image.place.nx) * static_cast<size_t>(image.place.ny) == n_token;
        blocks.push_back(has_grid ? grid_block(image, kept, view) : strip_block(image, kept));
        width = std::max(width, blocks.back().width());
        height += blocks.back().height() + kGap;
    }
    Canvas canvas(width + 2 * kMargin, height + kMargin - kGap, kBackground);
    canvas.text(kMargin, kMargin, 2, kFaintText, title);
    int y = kMargin + kLabelHeight + kGap;
    for (const Canvas & block : blocks) {
        canvas.draw(block, kMargin, y);
        y += block.height() + kGap;
    }
    return canvas;
}
