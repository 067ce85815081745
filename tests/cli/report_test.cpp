// SPDX-License-Identifier: MIT
#include "run_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "format.h"

namespace {

RunSetup setup() {
    RunSetup setup;
    setup.method.method = "prefixkv";
    setup.method.options.keep = 0.25;
    return setup;
}

TEST(Format, Sizes) {
    EXPECT_EQ(format_bytes(0), "0 B");
    EXPECT_EQ(format_bytes(1023), "1023 B");
    EXPECT_EQ(format_bytes(1536), "1.50 KiB");
    EXPECT_EQ(format_bytes(61 * 1024 * 1024 + 400 * 1024), "61.4 MiB");
    EXPECT_EQ(format_bytes(uint64_t{300} << 30U), "300 GiB");
    EXPECT_EQ(format_count(196608), "196,608");
    EXPECT_EQ(format_count(7), "7");
    EXPECT_EQ(format_ms(3.21), "3.2 ms");
    EXPECT_EQ(format_ms(412.4), "412 ms");
    EXPECT_EQ(format_ms(1730), "1.73 s");
}

TEST(Bar, FillsItsShare) {
    const TerminalStyle plain{};
    EXPECT_EQ(bar(plain, 0.0, 8), "........");
    EXPECT_EQ(bar(plain, 0.5, 8), "####....");
    EXPECT_EQ(bar(plain, 1.0, 8), "########");
    EXPECT_EQ(bar(plain, 0.001, 8), "#.......") << "a little is not nothing";
    EXPECT_EQ(bar(plain, 7.0, 8), "########");
    TerminalStyle fancy;
    fancy.utf8 = true;
    EXPECT_EQ(bar(fancy, 0.5, 3), "█▌·");
}

TEST(Chart, OneLinePerLayerWithinTheWidth) {
    kvsieve::Plan plan;
    plan.layers = {{{{0, 1, 2}}}, {{{0, 1}, {0, 1, 2, 3}}}};
    kvsieve::PromptShape prompt;
    prompt.n_tokens = 8;
    TerminalStyle style;
    style.width = 60;
    const std::string chart = budget_chart(style, setup(), plan, prompt);
    std::istringstream in(chart);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) {
        EXPECT_LE(line.size(), 60U) << line;
        lines.push_back(line);
    }
    ASSERT_EQ(lines.size(), 3U);
    EXPECT_NE(lines[0].find("prefixkv, keep 0.25"), std::string::npos);
    EXPECT_NE(lines[1].find(" 37.5 %"), std::string::npos);
    EXPECT_NE(lines[2].find("3   37.5 %  2..4"), std::string::npos) << "mean, and least..most of the heads";
}

TEST(Chart, TwoColumnsHoldEveryLayer) {
    kvsieve::Plan plan;
    plan.layers.assign(25, {{{0, 1, 2}}});
    kvsieve::PromptShape prompt;
    prompt.n_tokens = 8;
    TerminalStyle style;
    style.width = 110;
    const std::string chart = budget_chart(style, setup(), plan, prompt);
    EXPECT_EQ(std::count(chart.begin(), chart.end(), '\n'), 14);
    for (int il = 0; il < 25; ++il) {
        EXPECT_NE(chart.find((il < 10 ? "  " : " ") + std::to_string(il) + " #"), std::string::npos) << il;
    }
}

TEST(Chart, NothingToShowWhereNothingWasDropped) {
    kvsieve::Plan plan;
    plan.layers = {{{{0, 1, 2}}}};
    kvsieve::PromptShape prompt;
    prompt.n_tokens = 3;
    EXPECT_EQ(budget_chart(TerminalStyle{}, setup(), plan, prompt), "");
}

}  // namespace
