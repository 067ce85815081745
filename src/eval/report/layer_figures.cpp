// SPDX-License-Identifier: MIT
// Figures over layers and tokens: budgets, Lorenz curves, AirCache's weights, kept tokens.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/fixed.h"
#include "eval/report/figures.h"
#include "eval/report/svg.h"

namespace kvsieve::report {
namespace {

constexpr double kUsualShare = 0.2;  // the budget that pictures are drawn of, or the nearest there is
constexpr size_t kMaxOverlays = 6;
constexpr double kDimmest = 0.86;  // opacity of the cover over a token that no layer keeps

double asked_share(const CellKey & key) {
    return key.budget.value_or(key.keep.value_or(1.0));
}

std::string layer_colour(size_t il, size_t n_layer) {
    const double t = n_layer > 1 ? static_cast<double>(il) / static_cast<double>(n_layer - 1) : 0;
    return "hsl(" + fixed(225 - 205 * t, 0) + " 68% 52%)";
}

std::string heat_map(const std::vector<const ReportRow *> & rows, double share) {
    constexpr double kRow = 22, kTop = 40, kCharacter = 7.8;  // of a telephone
    double label = 0;
    for (const ReportRow * const row : rows) {
        label = std::max(label, 10 + kCharacter * static_cast<double>(method_label(row->key).size()));
    }
    const size_t n_layer = rows[0]->layer_share.size();
    const double width = std::clamp(380.0 / static_cast<double>(n_layer), 10.0, 40.0);
    const double height = kTop + kRow * static_cast<double>(rows.size()) + 8;
    Svg svg(label + width * static_cast<double>(n_layer) + 4, height,
            "Budgets per layer at " + fixed(100 * share, 0) + " %");
    svg.text(0, 14, "label", short_number(100 * share) + "% asked for");
    svg.text(label - 6, kTop - 6, "tick end", "layer");
    const size_t every = static_cast<size_t>(std::ceil(18 / width));
    for (size_t il = 0; il < n_layer; il += every) {
        svg.text(label + width * (static_cast<double>(il) + 0.5), kTop - 6, "tick mid", std::to_string(il));
    }
    for (size_t r = 0; r < rows.size(); ++r) {
        const double y = kTop + kRow * static_cast<double>(r);
        svg.text(label - 6, y + 15, "tick end", method_label(rows[r]->key));
        for (size_t il = 0; il < n_layer; ++il) {
            const double held = rows[r]->layer_share[il], x = label + width * static_cast<double>(il);
            svg.rect(x, y, width - 1, kRow - 1,
                     "class=\"heat\" fill-opacity=\"" + fixed(0.05 + 0.95 * std::sqrt(held), 3) + "\"",
                     method_label(rows[r]->key) + ", layer " + std::to_string(il) + ": " + fixed(100 * held, 1) +
                         " % of the rows");
            if (width >= 24) {
                svg.text(x + (width - 1) / 2, y + 15, held > 0.3 ? "in dark mid" : "in mid", fixed(100 * held, 0));
            }
        }
    }
    return svg.str();
}

/// One line over layers for each of some rows.
std::string layer_panel(const std::vector<const ReportRow *> & rows, const std::vector<double> ReportRow::*values,
                        const std::string & title, const Colours & colours) {
    double low = 0, high = 0;
    for (const ReportRow * const row : rows) {
        low = std::min(low, *std::min_element((row->*values).begin(), (row->*values).end()));
        high = std::max(high, *std::max_element((row->*values).begin(), (row->*values).end()));
    }
    const Frame frame{52, 34, 512, 220};
    const auto n_layer = static_cast<double>((rows[0]->*values).size());
    const Scale x(-0.5, n_layer - 0.5, frame.left, frame.right), y(low, high * 1.05, frame.bottom, frame.top);
    Svg svg(524, 262, title + " per layer");
    draw_axes(svg, frame, x, y, "layer", title);
    for (const ReportRow * const row : rows) {
        std::vector<std::pair<double, double>> points;
        svg.raw("<g class=\"series " + colours.of(row->key) + "\">\n");
        for (size_t il = 0; il < (row->*values).size(); ++il) {
            points.emplace_back(x(static_cast<double>(il)), y((row->*values)[il]));
        }
        svg.path(polyline(points), "class=\"curve\"", method_label(row->key));
        for (size_t il = 0; il < points.size(); ++il) {
            svg.path(
                "M" + fixed(points[il].first, 1) + " " + fixed(points[il].second, 1) +
                    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
                "class=\"marker\"",
                method_label(row->key) + ", layer " + std::to_string(il) + ": " + short_number((row->*values)[il]));
        }
        svg.raw("</g>\n");
    }
    return svg.str();
}

/// Covers over the tokens, darker where fewer layers keep one; one path for each number of layers.
std::string overlay_panel(const SampleFacts & facts, size_t number, const CellResult * cell, int32_t n_layer) {
    constexpr double kToken = 10;
    const double width = kToken * facts.nx, height = kToken * facts.ny;
    std::string caption = "as the encoder sees it";
    Svg svg(width, height, caption);
    const std::string id = "image" + std::to_string(number);
    if (cell == nullptr) {
        svg.raw("<image id=\"" + id + "\" href=\"" + escape(facts.image) + "\" width=\"" + fixed(width, 0) +
                "\" height=\"" + fixed(height, 0) + "\" preserveAspectRatio=\"none\"/>\n");
    } else {
        svg.raw("<use href=\"#" + id + "\"/>\n");
        std::map<int, std::string> covers;  // 0 = no layer keeps it
        for (size_t i = 0; i < cell->token_layers.size(); ++i) {
            const auto column = static_cast<int32_t>(i) % facts.nx, row = static_cast<int32_t>(i) / facts.nx;
            auto & path = covers[static_cast<int>(std::lround(cell->token_layers[i]))];
            path += "M" + fixed(kToken * column, 0) + " " + fixed(kToken * row, 0) + "h10v10h-10z";
        }
        const double mean = std::accumulate(cell->token_layers.begin(), cell->token_layers.end(), 0.0) / n_layer;
        const auto n_token = static_cast<double>(cell->token_layers.size());
        caption = method_label(cell->key) + ": " + fixed(mean, 0) + " of " + fixed(n_token, 0) + " in the mean layer";
        for (const auto & [kept, path] : covers) {
            const double opacity = kDimmest * (1 - std::min(1.0, static_cast<double>(kept) / n_layer));
            if (opacity > 0) {
                svg.path(path, "class=\"cover\" fill-opacity=\"" + fixed(opacity, 3) + "\"",
                         caption + "; here " + std::to_string(kept) + " of " + std::to_string(n_layer) + " layers");
            }
        }
    }
    return "<figure class=\"overlay\">" + svg.str() + "<figcaption>" + escape(caption) + "</figcaption></figure>\n";
}

}  // namespace

std::string budget_section(const std::vector<ReportRow> & rows) {
    std::map<double, std::vector<const ReportRow *>, std::greater<>> by_share;
    std::vector<std::vector<std::string>> lines;
    size_t n_layer = 0;
    for (const ReportRow & row : rows) {
        if (row.key.kv_type != "f16" || row.key.method == "full" || row.layer_share.empty() ||
            (n_layer != 0 && row.layer_share.size() != n_layer)) {
            continue;
        }
        n_layer = row.layer_share.size();
        by_share[asked_share(row.key)].push_back(&row);
        auto & line = lines.emplace_back(
            std::vector{escape(method_label(row.key)), short_number(100 * asked_share(row.key)) + " %"});
        for (const double held : row.layer_share) {
            line.push_back(fixed(100 * held, 1));
        }
    }
    if (by_share.empty()) {
        return "";
    }
    std::string panels;
    for (const auto & [share, of_share] : by_share) {
        panels += "<figure>" + heat_map(of_share, share) + "</figure>\n";
    }
    std::vector<std::string> head{"method", "asked for"};
    for (size_t il = 0; il < n_layer; ++il) {
        head.push_back("layer " + std::to_string(il));
    }
    return "<p>Share of a layer's rows that is held after compaction, in percent; mean over samples, f16.</p>\n"
           "<div class=\"panels\">" +
           panels + "</div>\n" + folded("Table: budgets per layer", table(head, lines));
}

std::string lorenz_section(const LayerInequality & layers) {
    if (layers.lorenz.empty() || layers.lorenz[0].size() < 2 || layers.gini.empty()) {
        return "";
    }
    const size_t n_layer = layers.lorenz.size(), n_gini = layers.gini.size();
    const Frame frame{52, 34, 412, 394};
    const Scale x(0, 1, frame.left, frame.right), y(0, 1, frame.bottom, frame.top);
    Svg curves(424, 436, "Lorenz curves of the layers");
    draw_axes(curves, frame, x, y, "share of the tokens, least important first", "share of the attention");
    curves.line(x(0), y(0), x(1), y(1), "equal", "equal attention to all tokens");
    std::vector<std::vector<std::string>> lines;
    for (size_t il = 0; il < n_layer; ++il) {
        const auto & curve = layers.lorenz[il];
        std::vector<std::pair<double, double>> points;
        for (size_t i = 0; i < curve.size(); ++i) {
            points.emplace_back(x(static_cast<double>(i) / static_cast<double>(curve.size() - 1)), y(curve[i]));
        }
        const double gini = il < n_gini ? layers.gini[il] : 0;
        curves.path(polyline(points), "class=\"lorenz\" style=\"stroke:" + layer_colour(il, n_layer) + "\"",
                    "layer " + std::to_string(il) + ": Gini " + fixed(gini, 3));
        const auto at = [&](double top) {
            return curve[static_cast<size_t>((1 - top) * static_cast<double>(curve.size() - 1))];
        };
        lines.push_back({std::to_string(il), fixed(gini, 3), fixed(100 * (1 - at(0.5)), 1),
                         fixed(100 * (1 - at(0.2)), 1), fixed(100 * (1 - at(0.1)), 1)});
    }
    const Frame bars{52, 34, 412, 394};
    const Scale bx(-0.6, static_cast<double>(n_gini) - 0.4, bars.left, bars.right), by(0, 1, bars.bottom, bars.top);
    Svg ginis(424, 436, "Gini coefficient of the layers");
    draw_axes(ginis, bars, bx, by, "layer", "Gini coefficient");
    const double width = 0.8 * (bx(1) - bx(0));
    for (size_t il = 0; il < n_gini; ++il) {
        ginis.rect(bx(static_cast<double>(il)) - width / 2, by(layers.gini[il]), width,
                   bars.bottom - by(layers.gini[il]), "style=\"fill:" + layer_colour(il, n_gini) + "\"",
                   "layer " + std::to_string(il) + ": Gini " + fixed(layers.gini[il], 3));
    }
    return "<p>How unequally attention is spread over the prompt's tokens: the further a curve hangs below the "
           "diagonal, "
           "the fewer tokens hold it, and the less of the layer has to be kept. Mean over " +
           std::to_string(layers.n_samples) + " samples, full cache.</p>\n<div class=\"panels\"><figure>" +
           curves.str() + "</figure>\n<figure>" + ginis.str() + "</figure></div>\n" +
           folded("Table: Gini and the attention that the most important tokens hold",
                  table({"layer", "Gini", "top 50%", "top 20%", "top 10%"}, lines));
}

std::string aircache_section(const std::vector<ReportRow> & rows, const Colours & colours) {
    // They come from the observation, not from the budget: one row of each method and its parameters.
    std::vector<const ReportRow *> first;
    for (const ReportRow & row : rows) {
        const bool is_new = std::none_of(first.begin(), first.end(), [&](const ReportRow * other) {
            return method_label(other->key) == method_label(row.key) || other->strength.size() != row.strength.size();
        });
        if (!row.strength.empty() && row.strength.size() == row.skewness.size() && is_new) {
            first.push_back(&row);
        }
    }
    if (first.empty()) {
        return "";
    }
    std::vector<std::vector<std::string>> lines;
    for (const ReportRow * const row : first) {
        for (size_t il = 0; il < row->strength.size(); ++il) {
            lines.push_back({escape(method_label(row->key)), std::to_string(il), fixed(row->strength[il], 4),
                             fixed(row->skewness[il], 4)});
        }
    }
    return "<p>What AirCache's layer budgets follow: how much attention the key text tokens pay to the image, and how "
           "skewed it is over the visual tokens. Mean over samples.</p>\n<div class=\"panels\"><figure>" +
           layer_panel(first, &ReportRow::strength, "strength", colours) + "</figure>\n<figure>" +
           layer_panel(first, &ReportRow::skewness, "skewness", colours) + "</figure></div>\n" +
           folded("Table: strength and skewness", table({"method", "layer", "strength", "skewness"}, lines));
}

std::string overlay_section(const Results & results) {
    const auto has_map = [](const CellResult & cell, const SampleFacts & facts) {
        return cell.sample == facts.sample && cell.key.kv_type == "f16" && cell.key.method != "full" &&
               cell.token_layers.size() == static_cast<size_t>(facts.nx) * static_cast<size_t>(facts.ny);
    };
    std::string out;
    std::vector<std::vector<std::string>> lines;
    double share = -1;
    size_t number = 0;
    for (const SampleFacts & facts : results.samples) {
        if (facts.image.empty() || facts.nx < 1 || facts.ny < 1 || number == kMaxOverlays) {
            continue;
        }
        for (const CellResult & cell : results.cells) {
            const auto distance = [&](double of) { return std::abs(std::log(of / kUsualShare)); };
            if (has_map(cell, facts) && (share < 0 || distance(asked_share(cell.key)) < distance(share))) {
                share = asked_share(cell.key);
            }
        }
        std::string panels = overlay_panel(facts, number, nullptr, results.header.n_layer);
        bool any = false;
        for (const CellResult & cell : results.cells) {
            if (has_map(cell, facts) && asked_share(cell.key) == share) {
                panels += overlay_panel(facts, number, &cell, std::max(1, results.header.n_layer));
                const auto n = static_cast<double>(cell.token_layers.size());
                const double mean = std::accumulate(cell.token_layers.begin(), cell.token_layers.end(), 0.0) /
                                    std::max(1, results.header.n_layer);
                const auto nowhere = std::count(cell.token_layers.begin(), cell.token_layers.end(), 0.0);
                lines.push_back({escape(facts.sample), escape(method_label(cell.key)), fixed(100 * mean / n, 1) + " %",
                                 std::to_string(nowhere), escape(cell.text)});
                any = true;
            }
        }
        if (any) {
            out += "<h3>" + escape(facts.sample) + "</h3>\n<div class=\"panels\">" + panels + "</div>\n";
            ++number;
        }
    }
    if (out.empty()) {
        return out;
    }
    return "<p>Which visual tokens are kept at " + short_number(100 * share) +
           "%: the fewer layers keep a token, the more it is covered.</p>\n" + out +
           folded("Table: kept visual tokens",
                  table({"sample", "method", "kept, mean layer", "tokens that no layer keeps", "answer"}, lines));
}

}  // namespace kvsieve::report
