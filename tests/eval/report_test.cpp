// SPDX-License-Identifier: MIT
// KVSIEVE_REPORT_DIR=FOLDER keeps the synthetic results and reports there, to look at them.
#include "eval/report/html.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "eval/data_uri.h"
#include "eval/report/svg.h"
#include "eval/synthetic.h"
#include "io/scratch.h"

namespace kvsieve {
namespace {

namespace fs = std::filesystem;
using test::Scratch;
using test::synthetic_results;

size_t count(const std::string & text, const std::string & part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) {
        ++n;
    }
    return n;
}

/// What keeps the text from being well-formed XML; "" if nothing does. Knows elements, attributes, entities.
std::string xml_fault(const std::string & text) {
    std::vector<std::string> open;
    const std::set<std::string> entities{"amp", "lt", "gt", "quot"};
    for (size_t at = text.find("<html"); at < text.size();) {
        if (text[at] == '&') {
            const size_t end = text.find(';', at);
            if (end == std::string::npos || !entities.contains(text.substr(at + 1, end - at - 1))) {
                return "entity at " + text.substr(at, 20);
            }
            at = end + 1;
            continue;
        }
        if (text[at] != '<') {
            ++at;
            continue;
        }
        size_t end = at + 1;
        std::set<std::string> names;
        const bool closing = text[end] == '/';
        end += closing ? 1 : 0;
        const size_t name_end = text.find_first_of(" >/\n", end);
        const std::string name = text.substr(end, name_end - end);
        end = name_end;
        bool empty = false;
        for (;;) {
            end = text.find_first_not_of(" \n", end);
            if (end == std::string::npos) {
                return "no end of <" + name;
            }
            if (text[end] == '>') {
                break;
            }
            if (text[end] == '/' && text[end + 1] == '>') {
                empty = true;
                ++end;
                break;
            }
            const size_t equals = text.find("=\"", end), quote = text.find('"', equals + 2);
            const std::string attribute = text.substr(end, equals - end);
            if (attribute.find_first_of("<> /") != std::string::npos || !names.insert(attribute).second) {
                return "attribute '" + attribute.substr(0, 40) + "' of <" + name;
            }
            if (text.substr(equals + 2, quote - equals - 2).find('<') != std::string::npos) {
                return "< in attribute " + attribute + " of <" + name;
            }
            end = quote + 1;
        }
        if (closing) {
            if (open.empty() || open.back() != name) {
                return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
            }
            open.pop_back();
        } else if (!empty) {
            open.push_back(name);
        }
        at = end + 1;
    }
    return open.empty() ? "" : "<" + open.back() + "> is never closed";
}

std::vector<std::string> two_images() {
    std::vector<std::string> out;
    for (const char * const name : {"form_1.png", "table_1.png"}) {
        out.push_back(data_uri("image/png", test::read_bytes(fs::path(KVSIEVE_MODELS_DIR) / "examples" / name)));
    }
    return out;
}

void keep(const std::string & name, const std::string & bytes) {
    if (const char * const folder = std::getenv("KVSIEVE_REPORT_DIR")) {
        test::write_bytes(fs::path(folder) / name, bytes);
    }
}

TEST(Report, AFullReportIsWellFormedAndHasEverySectionWithItsTable) {
    const Results results = synthetic_results({.images = two_images()});
    const std::string html = report_html(results);
    keep("report.html", html);
    EXPECT_EQ(xml_fault(html), "");
    for (const char * const id : {"leaderboard", "quality", "budgets", "lorenz", "aircache", "kept"}) {
        const size_t at = html.find("<section id=\"" + std::string(id) + "\">");
        ASSERT_NE(at, std::string::npos) << id;
        const std::string section = html.substr(at, html.find("</section>", at) - at);
        EXPECT_GE(count(section, "<table>"), 1U) << id;
        EXPECT_EQ(count(section, "no fields for this figure"), 0U) << id;
        if (std::string(id) != "leaderboard") {
            EXPECT_GE(count(section, "<svg "), 1U) << id;
            EXPECT_GE(count(section, "<title>"), 8U) << id;  // what hovering shows
        }
    }
    // Self-contained: the only addresses are the name space and fragments of the page.
    EXPECT_EQ(count(html, "http"), 1U);
    EXPECT_EQ(count(html, "<script"), 0U);
    EXPECT_EQ(count(html, "href=\""), count(html, "href=\"#") + count(html, "href=\"data:image/png;base64,"));
    EXPECT_EQ(count(html, "NaN") + count(html, "inf,") + count(html, "nan"), 0U);
    // two samples with an image and the same number of overlays for each
    EXPECT_EQ(count(html, "<image id="), 2U);
    EXPECT_EQ(count(html, "<use href=\"#image0\""), 7U);
    EXPECT_EQ(html, report_html(results));
}

TEST(Report, TheOracleIsMarkedAndHasNoPartInTheFrontier) {
    const Results plain = synthetic_results({.n_samples = 5});
    Results results = plain;
    for (CellKey & key : results.header.grid) {
        key.method = key.method == "prefixkv" ? kOracle : key.method;  // the best by far
    }
    for (CellResult & cell : results.cells) {
        if (cell.key.method == "prefixkv") {
            cell.key.method = kOracle;
            cell.nll = 0;
        }
    }
    const std::string html = report_html(results);
    EXPECT_EQ(xml_fault(html), "");
    EXPECT_GT(count(html, kOracleNote), 1U);
    EXPECT_EQ(count(report_html(plain), kOracleNote), 0U);
    const auto frontier = [](const std::string & text) {
        const size_t end = text.find("class=\"frontier\"");
        return text.substr(text.rfind("<path", end), end - text.rfind("<path", end));
    };
    Results without = results;
    std::erase_if(without.header.grid, [](const CellKey & key) { return key.method == kOracle; });
    std::erase_if(without.cells, [](const CellResult & cell) { return cell.key.method == kOracle; });
    EXPECT_EQ(count(frontier(html), "L"), count(frontier(report_html(without)), "L"));
    EXPECT_EQ(count(html, "value bound"), 5U * 2U * 4U) << "metrics x types x shares";
    EXPECT_GT(count(html, "chip so"), 0U);
}

TEST(Report, WithoutOptionalFieldsItSaysSo) {
    Results results = synthetic_results({.n_samples = 5, .by_budget = false});
    results.samples.clear();
    for (CellResult & cell : results.cells) {
        cell.layer_rows.clear();
        cell.strength.clear();
        cell.skewness.clear();
    }
    const std::string html = report_html(results);
    keep("report_bare.html", html);
    EXPECT_EQ(xml_fault(html), "");
    EXPECT_EQ(count(html, "no fields for this figure"), 4U);
    EXPECT_GT(count(html, "≈"), 4U);  // keeps are interpolated to equal bytes
}

TEST(Report, NamesFromOutsideAreEscapedAndFailuresAreShown) {
    Results results = synthetic_results({.n_samples = 3});
    results.header.model = "<b>&\"'</b>\x01";
    results.header.n_samples = 9;
    for (size_t i = 0; i < 3; ++i) {
        CellResult & cell = results.cells[results.cells.size() - 1 - i];
        cell = {.sample = cell.sample, .group = cell.group, .key = cell.key, .error = "no <image> here"};
    }
    const std::string html = report_html(results);
    EXPECT_EQ(xml_fault(html), "");
    EXPECT_NE(html.find("&lt;b&gt;&amp;&quot;'&lt;/b&gt;"), std::string::npos);
    EXPECT_NE(html.find("Only 3 of 9 samples are complete"), std::string::npos);
    EXPECT_NE(html.find("no &lt;image&gt; here"), std::string::npos);
}

TEST(Report, SurvivesTheFile) {
    const Scratch dir;
    const Results results = synthetic_results({.n_samples = 6, .images = two_images()});
    const char * const folder = std::getenv("KVSIEVE_REPORT_DIR");
    const fs::path path = folder != nullptr ? fs::path(folder) / "results.jsonl" : dir / "results.jsonl";
    fs::remove(path);
    {
        ResultsFile file(path, results.header);
        for (auto cell = results.cells.rbegin(); cell != results.cells.rend(); ++cell) {
            file.append(*cell);
        }
        for (const SampleFacts & facts : results.samples) {
            file.append(facts);
        }
    }
    const Results read = read_results(std::vector{path});
    EXPECT_EQ(read.cells, results.cells);
    EXPECT_EQ(report_html(read), report_html(results));
}

TEST(Report, DataUri) {
    EXPECT_EQ(data_uri("a/b", ""), "data:a/b;base64,");
    EXPECT_EQ(data_uri("a/b", "f"), "data:a/b;base64,Zg==");
    EXPECT_EQ(data_uri("a/b", "fo"), "data:a/b;base64,Zm8=");
    EXPECT_EQ(data_uri("a/b", "foobar"), "data:a/b;base64,Zm9vYmFy");
    EXPECT_EQ(data_uri("a/b", "\xFF\xFE\xFD"), "data:a/b;base64,//79");
}

TEST(Report, ScaleTicks) {
    using Ticks = std::vector<double>;
    EXPECT_EQ(report::Scale(0, 1, 0, 1).ticks(5), (Ticks{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}));
    const Ticks log = report::Scale(0.04, 1.1, 0, 1, true).ticks(6);
    ASSERT_EQ(log.size(), 5U);
    EXPECT_NEAR(log[0], 0.05, 1e-12);
    EXPECT_NEAR(log[4], 1.0, 1e-12);
    EXPECT_DOUBLE_EQ(report::Scale(1, 100, 0, 10, true)(10), 5.0);
    EXPECT_EQ(report::short_number(0.05), "0.05");
    EXPECT_EQ(report::short_number(20), "20");
    EXPECT_EQ(report::short_number(12.345), "12.3");
}

}  // namespace
}  // namespace kvsieve
