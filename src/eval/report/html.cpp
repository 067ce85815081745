// SPDX-License-Identifier: MIT
#include "eval/report/html.h"

#include <algorithm>
#include <iterator>

#include "eval/aggregate.h"
#include "eval/report/figures.h"
#include "eval/report/style.h"
#include "eval/report/svg.h"

namespace kvsieve {
namespace {

using report::escape;

std::string section(const std::string & id, const std::string & title, const std::string & content,
                    const std::string & absent) {
    return "<section id=\"" + id + "\">\n<h2>" + title + "</h2>\n" +
           (content.empty() ? "<p class=\"note\">" + absent + "</p>\n" : content) + "</section>\n";
}

std::string facts(const Results & results, const std::vector<ReportRow> & rows) {
    const ResultsHeader & header = results.header;
    const std::pair<const char *, std::string> entries[] = {
        {"Model", escape(header.model) + " <code>" + escape(header.model_fingerprint) + "</code>"},
        {"Data", escape(header.data) + " <code>" + escape(header.data_sha256.substr(0, 16)) + "…</code>"},
        {"Samples", std::to_string(results.n_complete) + " of " + std::to_string(header.n_samples) + " complete"},
        {"Cells",
         std::to_string(rows.size()) + " of " + std::to_string(header.grid.size()) + " methods × budgets × types"},
        {"kvsieve", escape(header.version)},
        {"Command", "<code>" + escape(header.command) + "</code>"},
    };
    std::string out = "<dl>";
    for (const auto & [name, value] : entries) {
        out += "<dt>" + std::string(name) + "</dt><dd>" + value + "</dd>\n";
    }
    return out + "</dl>\n";
}

std::string warnings(const Results & results, const std::vector<ReportRow> & rows) {
    std::string out;
    if (results.n_complete < results.header.n_samples) {
        out += "<p class=\"warning\">Only " + std::to_string(results.n_complete) + " of " +
               std::to_string(results.header.n_samples) + " samples are complete: the numbers will change.</p>\n";
    }
    std::vector<std::vector<std::string>> lines;
    for (const ReportRow & row : rows) {
        if (row.n_failed > 0) {
            const auto first = std::find_if(results.cells.begin(), results.cells.end(), [&](const CellResult & cell) {
                return cell.key == row.key && !cell.error.empty();
            });
            lines.push_back({escape(method_label(row.key)), escape(row.key.kv_type), std::to_string(row.n_failed),
                             escape(first->error)});
        }
    }
    if (!lines.empty()) {
        out += "<p class=\"warning\">Some cells could not be computed; their rows are means over fewer samples.</p>\n" +
               report::folded("Table: cells that failed",
                              report::table({"method", "KV type", "samples", "first reason"}, lines));
    }
    return out;
}

}  // namespace

std::string report_html(const Results & results) {
    const std::vector<ReportRow> rows = aggregate(results);
    const report::Colours colours(rows);
    std::vector<std::string> metrics{"ppl", "ppl_ratio"};
    metrics.insert(metrics.end(), std::begin(kMeanMetrics), std::end(kMeanMetrics));
    std::vector<std::string> shown = metrics;
    std::erase(shown, "ppl");  // its ratio to the full cache says the same
    const bool has_ratio =
        std::any_of(rows.begin(), rows.end(), [](const auto & row) { return row.metrics.contains("ppl_ratio"); });
    if (!has_ratio) {
        shown = metrics;
    }
    const std::string optional = "These results have no fields for this figure (docs/eval.md names them).";
    std::string out =
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta "
        "charset=\"utf-8\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
        "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>" +
        escape("KV cache compression: " + results.header.model) + "</title>\n<style>" + std::string(report::kStyle) +
        "</style>\n</head>\n<body>\n<header>\n<h1>KV cache compression at equal bytes</h1>\n" + facts(results, rows) +
        "<nav><a href=\"#leaderboard\">Leaderboard</a> <a href=\"#quality\">Quality</a> <a "
        "href=\"#budgets\">Budgets</a> "
        "<a href=\"#lorenz\">Lorenz</a> <a href=\"#aircache\">AirCache</a> <a href=\"#kept\">Kept tokens</a></nav>\n" +
        warnings(results, rows) + "</header>\n<main>\n";
    out += section("leaderboard", "Leaderboard at equal bytes", report::leaderboard_section(rows, shown, colours),
                   "No method was measured at two or more budgets.");
    out += section("quality", "Quality against bytes", report::quality_section(rows, shown, colours),
                   "No metric was measured.");
    out += section("budgets", "Budgets per layer", report::budget_section(rows), optional);
    out += section("lorenz", "Attention per layer: Lorenz curves", report::lorenz_section(layer_inequality(results)),
                   optional);
    out += section("aircache", "AirCache: strength and skewness per layer", report::aircache_section(rows, colours),
                   optional);
    out += section("kept", "Kept tokens", report::overlay_section(results), optional);
    return out +
           "</main>\n<footer>Intervals: 95%, 1,000 bootstrap resamples of images with a fixed seed. Metrics are "
           "defined in docs/eval.md.</footer>\n</body>\n</html>\n";
}

}  // namespace kvsieve
