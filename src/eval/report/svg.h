// SPDX-License-Identifier: MIT
// A picture as SVG text, in units of its view box. Colours come from the page's style through classes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsieve::report {

/// Text in HTML and SVG, attributes included.
[[nodiscard]] std::string escape(std::string_view text);

class Svg {
  public:
    Svg(double width, double height, std::string label) : width_(width), height_(height), label_(std::move(label)) {}

    /// `title` is what hovering shows; empty = none. Classes and styles are written as they are.
    void line(double x1, double y1, double x2, double y2, std::string_view cls, std::string_view title = "");
    void rect(double x, double y, double w, double h, std::string_view attributes, std::string_view title = "");
    void path(std::string_view d, std::string_view attributes, std::string_view title = "");
    void text(double x, double y, std::string_view cls, std::string_view text);
    /// Anything that is SVG already.
    void raw(std::string_view svg) { body_ += svg; }

    [[nodiscard]] std::string str() const;

  private:
    void close(std::string_view element, std::string_view title);

    double width_, height_;
    std::string label_, body_;
};

/// "M x y L x y ..."
[[nodiscard]] std::string polyline(const std::vector<std::pair<double, double>> & points);

/// From values to positions on a picture, linear or logarithmic.
class Scale {
  public:
    Scale(double low, double high, double at_low, double at_high, bool log = false);
    [[nodiscard]] double operator()(double value) const;
    /// Round values inside, at most about `n`.
    [[nodiscard]] std::vector<double> ticks(int n) const;
    [[nodiscard]] bool is_log() const { return log_; }

  private:
    double low_, high_, at_low_, at_high_;
    bool log_;
};

/// The value with as many decimals as its size asks for.
[[nodiscard]] std::string short_number(double value);

/// A frame with ticks, grid lines and axis titles; the plot area in it.
struct Frame {
    double left, top, right, bottom;
};
void draw_axes(Svg & svg, const Frame & frame, const Scale & x, const Scale & y, std::string_view x_title,
               std::string_view y_title, bool x_percent = false, bool y_percent = false);

}  // namespace kvsieve::report
