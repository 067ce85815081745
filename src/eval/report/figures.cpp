// SPDX-License-Identifier: MIT
// Leaderboard, quality against bytes, and what all figures share.
#include "eval/report/figures.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "eval/fixed.h"
#include "eval/report/svg.h"
#include "policy/number.h"

namespace kvsieve::report {
namespace {

constexpr size_t kColours = 10;
constexpr size_t kOpenTables = 2;  // leaderboards that need no click

bool is_share(const std::string & metric) {
    return !lower_is_better(metric);
}

std::string interval_text(const std::string & metric, const Estimate & estimate) {
    return metric_text(metric, estimate.low) + " – " + metric_text(metric, estimate.high);
}

std::string row_title(const ReportRow & row, const std::string & metric) {
    const Estimate & estimate = row.metrics.at(metric);
    return method_label(row.key) + ", " + row.key.kv_type + ", " + fixed(100 * row.share(), 1) +
           " % of the bytes: " + metric_title(metric) + " " + metric_text(metric, estimate.value) +
           " (95%: " + interval_text(metric, estimate) + "), keep " + fixed(row.keep, 3) + ", " +
           std::to_string(row.n_samples) + " samples";
}

/// A marker of the KV type: circle, square, diamond.
std::string marker(const std::string & kv_type, double x, double y) {
    const std::string at = fixed(x, 1) + " " + fixed(y, 1);
    if (kv_type == "q8_0") {
        return "M" + at + "m-4 -4h8v8h-8z";
    }
    if (kv_type == "q4_0") {
        return "M" + at + "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z";
    }
    return "M" + at + "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z";
}

/// Rows that no other row beats at as few bytes, ascending by share.
std::vector<const ReportRow *> frontier(const std::vector<const ReportRow *> & rows, const std::string & metric) {
    std::vector<const ReportRow *> sorted = rows, best;
    const double sign = lower_is_better(metric) ? 1 : -1;
    const auto loss = [&](const ReportRow * row) { return sign * row->metrics.at(metric).value; };
    std::stable_sort(sorted.begin(), sorted.end(), [&](const ReportRow * a, const ReportRow * b) {
        return a->share() != b->share() ? a->share() < b->share() : loss(a) < loss(b);
    });
    for (const ReportRow * const row : sorted) {
        if (row->key.method == kOracle) {
            continue;
        }
        if (best.empty() || loss(row) < loss(best.back())) {
            best.push_back(row);
        }
    }
    return best;
}

std::string quality_panel(const std::vector<const ReportRow *> & rows, const std::string & metric,
                          const Colours & colours) {
    double low = INFINITY, high = -INFINITY, least = 1, most = 1;
    for (const ReportRow * const row : rows) {
        const Estimate & estimate = row->metrics.at(metric);
        low = std::min(low, estimate.low);
        high = std::max(high, estimate.high);
        least = std::min(least, row->share());
        most = std::max(most, row->share());
    }
    const bool log = lower_is_better(metric) && low > 0 && high / low > 4;
    const double pad = 0.05 * (high - low);
    const Frame frame{52, 34, 512, 300};
    const double y_low = log ? low / 1.1 : is_share(metric) ? std::max(0.0, low - pad) : low - pad;
    const double y_high = log ? high * 1.1 : is_share(metric) ? std::min(1.0, high + pad) : high + pad;
    const Scale x(least / 1.15, most * 1.1, frame.left, frame.right, true);
    const Scale y(y_low, y_high, frame.bottom, frame.top, log);
    Svg svg(524, 342, metric_title(metric) + " against bytes");
    draw_axes(svg, frame, x, y, "bytes held, share of the full f16 cache",
              metric_title(metric) + (lower_is_better(metric) ? " (lower is better)" : ""), true, is_share(metric));

    std::vector<std::pair<double, double>> best;
    for (const ReportRow * const row : frontier(rows, metric)) {
        best.emplace_back(x(row->share()), y(row->metrics.at(metric).value));
    }
    svg.path(polyline(best), "class=\"frontier\"", "frontier: nothing measured is better at as few bytes");

    std::map<CellKey, std::vector<const ReportRow *>> series;
    for (const ReportRow * const row : rows) {
        series[{.method = row->key.method, .params = row->key.params, .kv_type = row->key.kv_type}].push_back(row);
    }
    // Series that hold the same bytes stand side by side, so that their intervals can be told apart.
    const double beside = std::min(2.4, 34.0 / static_cast<double>(series.size()));
    double shift = -0.5 * beside * static_cast<double>(series.size() - 1) - beside;
    for (auto & [key, of_series] : series) {
        shift += beside;
        std::stable_sort(of_series.begin(), of_series.end(),
                         [](const ReportRow * a, const ReportRow * b) { return a->share() < b->share(); });
        std::vector<std::pair<double, double>> points;
        svg.raw("<g class=\"series " + colours.of(key) + " " + (key.kv_type == "f16" ? "" : "quantised") + "\">\n");
        for (const ReportRow * const row : of_series) {
            const Estimate & estimate = row->metrics.at(metric);
            points.emplace_back(x(row->share()) + (row->key.method == "full" ? 0 : shift), y(estimate.value));
            svg.line(points.back().first, y(estimate.low), points.back().first, y(estimate.high), "interval");
        }
        svg.path(polyline(points), "class=\"curve\"", method_label(key) + ", " + key.kv_type);
        for (size_t i = 0; i < points.size(); ++i) {
            svg.path(marker(key.kv_type, points[i].first, points[i].second), "class=\"marker\"",
                     row_title(*of_series[i], metric));
        }
        svg.raw("</g>\n");
    }
    return svg.str();
}

std::string oracle_note() {
    return "<p class=\"note\">" + escape(kOracleNote) + " It has no rank and no part in the frontier.</p>\n";
}

std::string leaderboard_table(const Leaderboard & board, const std::string & metric, const Colours & colours) {
    std::vector<std::string> head{"share of the bytes"};
    for (const double share : board.shares) {
        head.push_back(short_number(100 * share) + "%");
    }
    // what a perplexity loses spans magnitudes
    const auto loss_of = [&](double value) { return lower_is_better(metric) ? std::log(value) : -value; };
    std::vector<double> best(board.shares.size(), INFINITY), worst(board.shares.size(), -INFINITY);
    for (const auto & line : board.lines) {
        for (size_t i = 0; i < line.at.size() && line.key.method != kOracle; ++i) {
            if (line.at[i]) {
                best[i] = std::min(best[i], loss_of(line.at[i]->estimate.value));
                worst[i] = std::max(worst[i], loss_of(line.at[i]->estimate.value));
            }
        }
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto & line : board.lines) {
        auto & row = rows.emplace_back(std::vector{"<span class=\"chip " + colours.of(line.key) + "\"></span>" +
                                                   escape(method_label(line.key)) + " <small>" +
                                                   escape(line.key.kv_type) + "</small>"});
        const bool ranked = line.key.method != kOracle;
        for (size_t i = 0; i < line.at.size(); ++i) {
            if (!line.at[i]) {
                row.emplace_back("–");
                continue;
            }
            const Estimate & estimate = line.at[i]->estimate;
            const double loss = loss_of(estimate.value);
            // a bar from 8% (the worst of the column) to 100% (the best)
            const double width = worst[i] > best[i] ? 8 + 92 * (worst[i] - loss) / (worst[i] - best[i]) : 100;
            const bool is_best = ranked && loss <= best[i];
            const std::string mark = is_best ? " best" : ranked ? "" : " bound";
            row.push_back(
                "<div class=\"value" + mark + "\">" + (line.at[i]->interpolated ? "≈ " : "") +
                metric_text(metric, estimate.value) +
                (line.at[i]->interpolated ? "" : "<small>" + interval_text(metric, estimate) + "</small>") +
                (ranked ? "<i class=\"bar " + colours.of(line.key) + "\" style=\"width:" + fixed(width, 0) + "%\"></i>"
                        : "") +
                "</div>");
        }
    }
    return table(head, rows);
}

}  // namespace

Colours::Colours(const std::vector<ReportRow> & rows) {
    for (const ReportRow & row : rows) {
        const std::string label = method_label(row.key);
        if (!classes_.contains(label)) {
            const bool oracle = row.key.method == kOracle, numbered = row.key.method != "full" && !oracle;
            classes_[label] = numbered ? "s" + std::to_string(n_numbered_++ % kColours) : oracle ? "so" : "sf";
            if (row.key.method != "full") {
                labels_.push_back(label);
            }
        }
        if (std::find(types_.begin(), types_.end(), row.key.kv_type) == types_.end()) {
            types_.push_back(row.key.kv_type);
        }
    }
}

std::string Colours::of(const CellKey & key) const {
    const auto found = classes_.find(method_label(key));
    return found == classes_.end() ? "sf" : found->second;
}

std::string Colours::legend() const {
    std::string out = "<ul class=\"legend\">";
    for (const std::string & label : labels_) {
        out += "<li><span class=\"chip " + classes_.at(label) + "\"></span>" + escape(label) + "</li>";
    }
    if (classes_.contains("full")) {
        out += "<li><span class=\"chip sf\"></span>full cache</li>";
    }
    for (const std::string & type : types_) {
        Svg svg(28, 12, type);
        svg.raw("<g class=\"series sf" + std::string(type == "f16" ? "" : " quantised") + "\">");
        svg.path("M0 6H28", "class=\"curve\"");
        svg.path(marker(type, 14, 6), "class=\"marker\"");
        svg.raw("</g>");
        out += "<li class=\"type\">" + svg.str() + escape(type) + "</li>";
    }
    return out + "<li><span class=\"chip frontier-chip\"></span>frontier</li></ul>\n";
}

std::string metric_title(const std::string & metric) {
    static const std::map<std::string, std::string> kTitles{
        {"ppl", "Perplexity"},
        {"ppl_ratio", "Perplexity / full cache"},
        {"rouge_l", "ROUGE-L to the full cache's answer"},
        {"exact_match", "Exact match"},
        {"anls", "ANLS"},
        {"relaxed_accuracy", "Relaxed accuracy"},
        {"exact_match_next", "Exact match, later questions"},
    };
    const auto found = kTitles.find(metric);
    return found == kTitles.end() ? metric : found->second;
}

std::string metric_text(const std::string & metric, double value) {
    return is_share(metric) ? fixed(100 * value, 1) : value < 100 ? fixed(value, 3) : fixed(value, 0);
}

std::string table(const std::vector<std::string> & head, const std::vector<std::vector<std::string>> & rows) {
    std::string out = "<div class=\"scroll\"><table><thead><tr>";
    for (const std::string & cell : head) {
        out += "<th>" + escape(cell) + "</th>";
    }
    out += "</tr></thead><tbody>\n";
    for (const auto & row : rows) {
        out += "<tr>";
        for (size_t i = 0; i < row.size(); ++i) {
            out += i == 0 ? "<th>" + row[i] + "</th>" : "<td>" + row[i] + "</td>";
        }
        out += "</tr>\n";
    }
    return out + "</tbody></table></div>\n";
}

std::string folded(const std::string & summary, const std::string & content) {
    return "<details><summary>" + escape(summary) + "</summary>\n" + content + "</details>\n";
}

std::string leaderboard_section(const std::vector<ReportRow> & rows, const std::vector<std::string> & metrics,
                                const Colours & colours) {
    std::string out;
    bool interpolated = false;
    size_t n_shown = 0;
    for (const std::string & metric : metrics) {
        const Leaderboard board = leaderboard(rows, metric);
        if (board.lines.empty()) {
            continue;
        }
        for (const auto & line : board.lines) {
            for (const auto & standing : line.at) {
                interpolated = interpolated || (standing && standing->interpolated);
            }
        }
        const auto full = std::find_if(rows.begin(), rows.end(), [&](const ReportRow & row) {
            return row.key.method == "full" && row.key.kv_type == "f16" && row.metrics.contains(metric);
        });
        std::string shown =
            "<p class=\"note\">" + std::string(lower_is_better(metric) ? "Lower" : "Higher") + " is better.";
        if (full != rows.end()) {
            shown += " Full cache in f16: <b>" + metric_text(metric, full->metrics.at(metric).value) + "</b>.";
        }
        shown += "</p>\n" + leaderboard_table(board, metric, colours);
        const std::string title = metric_title(metric) + (is_share(metric) ? ", %" : "");
        out += n_shown++ < kOpenTables ? "<h3>" + escape(title) + "</h3>\n" + shown : folded(title, shown);
    }
    if (out.empty()) {
        return out;
    }
    std::string intro =
        "<p>Every column holds the same number of bytes for every method and KV type. Small numbers are 95% intervals; "
        "the best of a column is bold; sorted by the rightmost column that all lines have.</p>\n";
    if (interpolated) {
        intro +=
            "<p class=\"note\">≈: this run measured shares of rows (<code>--keep</code>), not of bytes; the value is "
            "read between the two nearest measured points. <code>--budget</code> measures at equal bytes.</p>\n";
    }
    if (has_oracle(rows)) {
        intro += oracle_note();
    }
    return intro + out;
}

std::string quality_section(const std::vector<ReportRow> & rows, const std::vector<std::string> & metrics,
                            const Colours & colours) {
    std::string panels, tables;
    for (const std::string & metric : metrics) {
        std::vector<const ReportRow *> of_metric;
        std::vector<std::vector<std::string>> lines;
        for (const ReportRow & row : rows) {
            if (row.n_samples == 0 || !row.metrics.contains(metric)) {
                continue;
            }
            of_metric.push_back(&row);
            const Estimate & estimate = row.metrics.at(metric);
            lines.push_back({escape(method_label(row.key)), escape(row.key.kv_type), fixed(row.keep, 3),
                             row.key.budget ? fixed(100 * *row.key.budget, 1) + " %" : "–",
                             fixed(100 * row.share(), 1) + " %", fixed(row.kv_bytes / 1024, 1),
                             metric_text(metric, estimate.value), interval_text(metric, estimate),
                             std::to_string(row.n_samples)});
        }
        if (of_metric.empty()) {
            continue;
        }
        panels += "<figure>" + quality_panel(of_metric, metric, colours) + "</figure>\n";
        tables += folded("Table: " + metric_title(metric), table({"method", "KV type", "keep", "budget", "bytes", "KiB",
                                                                  metric_title(metric), "95%", "samples"},
                                                                 lines));
    }
    return panels.empty()
               ? ""
               : colours.legend() +
                     "<p class=\"note\">Points that hold the same bytes are drawn side by side. "
                     "Bars are 95% intervals.</p>\n" +
                     (has_oracle(rows) ? oracle_note() : "") + "<div class=\"panels\">" + panels + "</div>\n" + tables;
}

}  // namespace kvsieve::report
