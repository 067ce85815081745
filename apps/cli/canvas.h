// SPDX-License-Identifier: MIT
// A picture to draw on: pixels, rectangles, small text, PNG.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

using Color = std::array<uint8_t, 3>;

[[nodiscard]] Color blend(const Color & a, const Color & b, double share_of_b);

class Canvas {
  public:
    Canvas(int width, int height, const Color & background = {0, 0, 0});
    /// [height][width][3]
    Canvas(int width, int height, std::vector<uint8_t> rgb);

    [[nodiscard]] int width() const { return width_; }
    [[nodiscard]] int height() const { return height_; }
    /// (x, y) must be inside.
    [[nodiscard]] Color at(int x, int y) const;
    void set(int x, int y, const Color & color);

    /// What lies outside is cut off.
    void fill(int x, int y, int width, int height, const Color & color);
    void draw(const Canvas & other, int x, int y);
    /// Top left corner at (x, y). Characters outside ASCII are drawn as '?'.
    void text(int x, int y, int scale, const Color & color, std::string_view text);

    [[nodiscard]] Canvas resized(int width, int height) const;
    [[nodiscard]] std::string png() const;

    static constexpr int kTextHeight = 10;  ///< of a line at scale 1, in pixels
    [[nodiscard]] static int text_width(std::string_view text, int scale);

  private:
    [[nodiscard]] size_t index(int x, int y) const;
    int width_ = 0;
    int height_ = 0;
    std::vector<uint8_t> rgb_;
};
