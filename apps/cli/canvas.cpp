// SPDX-License-Identifier: MIT
#include "canvas.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kvsieve/error.h"

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_RESIZE_STATIC
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_easy_font.h>
#include <stb/stb_image_resize.h>
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace {

/// Printable ASCII with a final 0, as stb_easy_font takes it.
std::string printable_ascii(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xc0U) == 0x80U) {
            continue;  // the rest of a character that became one '?'
        }
        out += byte >= 32 && byte < 127 ? c : '?';
    }
    return out;
}

}  // namespace

Color blend(const Color & a, const Color & b, double share_of_b) {
    Color out{};
    for (size_t i = 0; i < 3; ++i) {
        out[i] = static_cast<uint8_t>(std::lround(a[i] + (b[i] - a[i]) * std::clamp(share_of_b, 0.0, 1.0)));
    }
    return out;
}

Canvas::Canvas(int width, int height, const Color & background) : width_(width), height_(height) {
    rgb_.resize(index(0, height));
    fill(0, 0, width, height, background);
}

Canvas::Canvas(int width, int height, std::vector<uint8_t> rgb) : width_(width), height_(height), rgb_(std::move(rgb)) {
    if (rgb_.size() != index(0, height)) {
        throw kvsieve::Error(kvsieve::ErrorCode::invalid_argument, "a picture's pixels do not match its size");
    }
}

size_t Canvas::index(int x, int y) const {
    return (static_cast<size_t>(y) * static_cast<size_t>(width_) + static_cast<size_t>(x)) * 3;
}

Color Canvas::at(int x, int y) const {
    const size_t i = index(x, y);
    return {rgb_[i], rgb_[i + 1], rgb_[i + 2]};
}

void Canvas::set(int x, int y, const Color & color) {
    std::copy(color.begin(), color.end(), rgb_.begin() + static_cast<std::ptrdiff_t>(index(x, y)));
}

void Canvas::fill(int x, int y, int width, int height, const Color & color) {
    for (int row = std::max(y, 0); row < std::min(y + height, height_); ++row) {
        for (int column = std::max(x, 0); column < std::min(x + width, width_); ++column) {
            set(column, row, color);
        }
    }
}

void Canvas::draw(const Canvas & other, int x, int y) {
    for (int row = std::max(0, -y); row < other.height_ && row + y < height_; ++row) {
        for (int column = std::max(0, -x); column < other.width_ && column + x < width_; ++column) {
            set(column + x, row + y, other.at(column, row));
        }
    }
}

void Canvas::text(int x, int y, int scale, const Color & color, std::string_view text) {
    struct Vertex {  // stb_easy_font's layout
        float x, y, z;
        std::array<unsigned char, 4> color;
    };
    std::string ascii = printable_ascii(text);
    std::vector<Vertex> vertices(ascii.size() * 32 + 64);
    const int n_quad = stb_easy_font_print(0, 0, ascii.data(), nullptr, vertices.data(),
                                           static_cast<int>(vertices.size() * sizeof(Vertex)));
    for (size_t quad = 0; quad < static_cast<size_t>(n_quad); ++quad) {
        const Vertex & from = vertices[quad * 4];
        const Vertex & to = vertices[quad * 4 + 2];
        const auto pixels = [&](float value) { return static_cast<int>(std::lround(value)) * scale; };
        fill(x + pixels(from.x), y + pixels(from.y), pixels(to.x - from.x), pixels(to.y - from.y), color);
    }
}

int Canvas::text_width(std::string_view text, int scale) {
    std::string ascii = printable_ascii(text);
    return stb_easy_font_width(ascii.data()) * scale;
}

Canvas Canvas::resized(int width, int height) const {
    if (width == width_ && height == height_) {
        return *this;
    }
    Canvas out(width, height);
    if (stbir_resize_uint8(rgb_.data(), width_, height_, 0, out.rgb_.data(), width, height, 0, 3) == 0) {
        throw std::bad_alloc();
    }
    return out;
}

std::string Canvas::png() const {
    std::string bytes;
    const auto append = [](void * context, void * data, int size) {
        static_cast<std::string *>(context)->append(static_cast<const char *>(data), static_cast<size_t>(size));
    };
    if (stbi_write_png_to_func(append, &bytes, width_, height_, 3, rgb_.data(), 0) == 0) {
        throw std::bad_alloc();
    }
    return bytes;
}
