// SPDX-License-Identifier: MIT
// kvsieve report, started as a user would.
#include <nlohmann/json.hpp>

#include "program.h"

namespace cli_test {
namespace {

const char kHeader[] =
    R"({"kvsieve_results":1,"version":"1","command":"c","model":"m","model_fingerprint":"f","data":"d","data_sha256":"0",)"
    R"("n_samples":1,"n_layer":1,"n_head_kv":1,"metrics":["anls"],"grid":[{"method":"full","keep":1,"kv_type":"f16"}]})"
    "\n";
const char kCell[] =
    R"({"sample":"a","group":"a","method":"full","keep":1,"kv_type":"f16","n_prompt":2,"kv_bytes":8,"kv_bytes_full":8,)"
    R"("anls":0.5})"
    "\n";

Finished report(std::vector<std::string> args) {
    args.insert(args.begin(), "report");
    return run_program(args);
}

TEST(ReportCommand, PrintsATableJsonOrCsv) {
    const TempFolder dir;
    const std::string file = (dir / "r.jsonl").string();
    write_file(file, std::string(kHeader) + kCell + "{\"sample\":\"half a li");
    const Finished text = report({file});
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find("full"), std::string::npos);
    EXPECT_NE(text.out.find("0.500"), std::string::npos);
    const auto rows = nlohmann::json::parse(report({file, "--json"}).out);
    EXPECT_EQ(rows.at(0).at("anls"), 0.5);
    EXPECT_EQ(report({file, "--csv"}).out.find("method,params,keep,budget"), 0U);
}

TEST(ReportCommand, WritesOnePage) {
    const TempFolder dir;
    const std::string file = (dir / "r.jsonl").string(), page = (dir / "r.html").string();
    write_file(file, std::string(kHeader) + kCell);
    const Finished done = report({file, "-o", page});
    EXPECT_EQ(done.exit_code, 0) << done.err;
    EXPECT_EQ(done.out, "");
    EXPECT_NE(read_file(page).find("</html>"), std::string::npos);
}

TEST(ReportCommand, WhateverIsWrongIsOneSentence) {
    const TempFolder dir;
    const std::string file = (dir / "r.jsonl").string(), other = (dir / "o.jsonl").string();
    write_file(file, std::string(kHeader) + kCell);
    std::string header = kHeader;
    header.replace(header.find("\"f\""), 3, "\"g\"");
    write_file(other, header);
    const std::pair<std::vector<std::string>, const char *> cases[] = {
        {{}, "results is required"},
        {{"no"}, "no: there is no such file"},
        {{file, other}, "differs from that of "},
        {{file, "--json", "--csv"}, "--json and --csv exclude each other"},
        {{file, "-o", (dir / "no/r.html").string()}, "cannot write"},
    };
    for (const auto & [args, part] : cases) {
        expect_refused(report(args), {part});
    }
}

}  // namespace
}  // namespace cli_test
