// SPDX-License-Identifier: MIT
#include "eval/report/svg.h"

#include <algorithm>
#include <cmath>

#include "eval/fixed.h"

namespace kvsieve::report {
namespace {

std::string attribute(std::string_view name, double value) {
    return " " + std::string(name) + "=\"" + fixed(value, 1) + "\"";
}

}  // namespace

std::string escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            // control characters are not allowed in XML
            default:
                out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
        }
    }
    return out;
}

void Svg::close(std::string_view element, std::string_view title) {
    if (title.empty()) {
        body_ += "/>";
    } else {
        body_ += "><title>" + escape(title) + "</title></" + std::string(element) + ">";
    }
    body_ += "\n";
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view cls, std::string_view title) {
    body_ += "<line class=\"" + std::string(cls) + "\"" + attribute("x1", x1) + attribute("y1", y1) +
             attribute("x2", x2) + attribute("y2", y2);
    close("line", title);
}

void Svg::rect(double x, double y, double w, double h, std::string_view attributes, std::string_view title) {
    body_ += "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", w) + attribute("height", h) + " " +
             std::string(attributes);
    close("rect", title);
}

void Svg::path(std::string_view d, std::string_view attributes, std::string_view title) {
    body_ += "<path d=\"" + std::string(d) + "\" " + std::string(attributes);
    close("path", title);
}

void Svg::text(double x, double y, std::string_view cls, std::string_view text) {
    body_ += "<text class=\"" + std::string(cls) + "\"" + attribute("x", x) + attribute("y", y) + ">" + escape(text) +
             "</text>\n";
}

std::string Svg::str() const {
    return "<svg viewBox=\"0 0 " + fixed(width_, 0) + " " + fixed(height_, 0) + "\" role=\"img\" aria-label=\"" +
           escape(label_) + "\" style=\"max-width:" + fixed(width_, 0) + "px\">\n" + body_ + "</svg>\n";
}

std::string polyline(const std::vector<std::pair<double, double>> & points) {
    std::string out;
    for (const auto & [x, y] : points) {
        out += (out.empty() ? "M" : "L") + fixed(x, 1) + " " + fixed(y, 1);
    }
    return out;
}

Scale::Scale(double low, double high, double at_low, double at_high, bool log)
    : low_(low), high_(high > low ? high : low + 1), at_low_(at_low), at_high_(at_high), log_(log) {}

double Scale::operator()(double value) const {
    const double t =
        log_ ? std::log(std::max(value, low_ * 1e-3) / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
    return at_low_ + t * (at_high_ - at_low_);
}

std::vector<double> Scale::ticks(int n) const {
    std::vector<double> out;
    if (log_) {
        for (const std::vector<double> & steps : {std::vector<double>{1, 2, 5}, std::vector<double>{1, 3}}) {
            out.clear();
            for (double decade = std::pow(10, std::floor(std::log10(low_))); decade <= high_; decade *= 10) {
                for (const double step : steps) {
                    if (decade * step >= low_ * 0.999 && decade * step <= high_ * 1.001) {
                        out.push_back(decade * step);
                    }
                }
            }
            if (out.size() <= static_cast<size_t>(n) + 2) {
                break;
            }
        }
        if (out.size() >= 3) {
            return out;
        }
        out.clear();
    }
    const double rough = (high_ - low_) / n, size = std::pow(10, std::floor(std::log10(rough)));
    const double factor = rough / size <= 1 ? 1 : rough / size <= 2 ? 2 : rough / size <= 5 ? 5 : 10;
    const double step = factor * size;
    for (auto i = static_cast<int64_t>(std::ceil(low_ / step - 1e-9));
         static_cast<double>(i) * step <= high_ + 1e-9 * step; ++i) {
        out.push_back(static_cast<double>(i) * step);
    }
    return out;
}

std::string short_number(double value) {
    const double size = std::abs(value);
    std::string out = fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
    if (out.find('.') != std::string::npos) {
        out.erase(out.find_last_not_of('0') + 1);
        out.erase(out.find_last_not_of('.') + 1);
    }
    return out;
}

void draw_axes(Svg & svg, const Frame & frame, const Scale & x, const Scale & y, std::string_view x_title,
               std::string_view y_title, bool x_percent, bool y_percent) {
    const auto text = [](double tick, bool percent) {
        return percent ? short_number(100 * tick) + "%" : short_number(tick);
    };
    for (const double tick : y.ticks(5)) {
        svg.line(frame.left, y(tick), frame.right, y(tick), "grid");
        svg.text(frame.left - 6, y(tick) + 4, "tick end", text(tick, y_percent));
    }
    for (const double tick : x.ticks(6)) {
        svg.line(x(tick), frame.bottom, x(tick), frame.bottom + 4, "axis");
        svg.text(x(tick), frame.bottom + 17, "tick mid", text(tick, x_percent));
    }
    svg.line(frame.left, frame.bottom, frame.right, frame.bottom, "axis");
    svg.text((frame.left + frame.right) / 2, frame.bottom + 34, "label mid", x_title);
    svg.text(frame.left - 6, frame.top - 10, "label", y_title);
}

}  // namespace kvsieve::report
