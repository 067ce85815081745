// SPDX-License-Identifier: MIT
// kvsieve eval, started, killed and started again as a user would.
#include <nlohmann/json.hpp>

#include "program.h"

namespace cli_test {
namespace {

using Args = std::vector<std::string>;

class Eval : public testing::Test {
  protected:
    void SetUp() override {
        write_data(6);
        make_small_model(dir_ / "model.gguf", 32);
    }
    /// Lines of token numbers: 40 of prompt, 5 of answer.
    void write_data(int n) {
        std::string lines;
        for (int i = 0; i < n; ++i) {
            nlohmann::json line = {{"id", "s" + std::to_string(i)}, {"prompt_tokens", {}}, {"answer_tokens", {}}};
            for (int t = 0; t < 45; ++t) {
                line[t < 40 ? "prompt_tokens" : "answer_tokens"].push_back(5 + (i * 31 + t * 17) % 200);
            }
            lines += line.dump() + "\n";
        }
        write_file(dir_ / "data.jsonl", lines);
    }
    [[nodiscard]] Args args(const std::string & out, const Args & more = {}) const {
        Args all{"eval",
                 "-m",
                 (dir_ / "model.gguf").string(),
                 "--data",
                 (dir_ / "data.jsonl").string(),
                 "--metrics",
                 "ppl",
                 "--methods",
                 "full,prefixkv,h2o,random",
                 "--budget",
                 "0.5,0.2",
                 "--kv-type",
                 "f16,q8_0",
                 "--template",
                 "none",
                 "-o",
                 (dir_ / out).string()};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    void evaluate(const std::string & out, const Args & more = {}) const {
        const Finished finished = run_program(args(out, more));
        EXPECT_EQ(finished.exit_code, 0) << finished.err;
    }
    [[nodiscard]] std::string report(const Args & files) const {
        Args all{"report", "--json"};
        for (const std::string & file : files) {
            all.push_back((dir_ / file).string());
        }
        const Finished finished = run_program(all);
        EXPECT_EQ(finished.exit_code, 0) << finished.err;
        return finished.out;
    }
    void expect_bad(const Args & all, const Args & parts) const { expect_refused(run_program(all), parts); }

    TempFolder dir_;
};

TEST_F(Eval, BudgetsAreEqualBytes) {
    evaluate("r.jsonl");
    const auto rows = nlohmann::json::parse(report({"r.jsonl"}));
    ASSERT_EQ(rows.size(), 2U + 3U * 2U * 2U);
    for (const auto & row : rows) {
        EXPECT_EQ(row["n_samples"], 6) << row;
        EXPECT_EQ(row["n_tokens"], 30);
        if (!row["budget"].is_null()) {
            const double share = row["kv_bytes"].get<double>() / row["kv_bytes_full"].get<double>();
            EXPECT_LE(share, row["budget"].get<double>());
            EXPECT_GT(share, row["budget"].get<double>() - 0.06) << row;
        }
    }
}

TEST_F(Eval, ProfilesAndUnrotatedRows) {
    make_small_model(dir_ / "wide.gguf", 64);  // rotated by default
    const std::string profile = (dir_ / "profile.json").string(), other = (dir_ / "other.json").string();
    write_file(profile, "[0.5, 0.25]");
    write_file(other,
               R"({"kvsieve_profile": 1, "method": "prefixkv", "model_fingerprint": "x", "forget": [0.5, 0.25]})");
    const auto args_of = [&](const std::string & file) {
        return Args{"eval",
                    "-m",
                    (dir_ / "wide.gguf").string(),
                    "--data",
                    (dir_ / "data.jsonl").string(),
                    "--metrics",
                    "ppl",
                    "--methods",
                    "prefixkv:profile=" + file,
                    "--kv-type",
                    "f16,q4_0,q4_0-unrotated",
                    "-o",
                    (dir_ / "p.jsonl").string()};
    };
    const Finished finished = run_program(args_of(profile));
    ASSERT_EQ(finished.exit_code, 0) << finished.err;
    const auto rows = nlohmann::json::parse(report({"p.jsonl"}));
    ASSERT_EQ(rows.size(), 3U);
    EXPECT_EQ(rows[0]["n_failed"], 0);
    EXPECT_NEAR(rows[0]["kv_bytes"].get<double>() / rows[0]["kv_bytes_full"].get<double>(), 0.625, 0.02);
    EXPECT_EQ(rows[1]["kv_bytes"], rows[2]["kv_bytes"]);
    EXPECT_NE(rows[1]["ppl"], rows[2]["ppl"]);
    expect_bad(args_of(other), {"fingerprint x"});
    expect_bad(args_of((dir_ / "none.json").string()), {"none.json"});
}

TEST_F(Eval, TheOracleIsNamedInTheHelpAndMarkedInTheReport) {
    EXPECT_NE(run_program({"eval", "--help"}).out.find("oracle"), std::string::npos);
    Args all = args("o.jsonl");
    *std::ranges::find(all, "full,prefixkv,h2o,random") = "full,sieve,oracle:spread=0";
    const Finished finished = run_program(all);
    ASSERT_EQ(finished.exit_code, 0) << finished.err;
    const auto rows = nlohmann::json::parse(report({"o.jsonl"}));
    ASSERT_EQ(rows.size(), 2U + 2U * 2U * 2U);
    EXPECT_EQ(rows[6]["method"], "oracle");
    EXPECT_EQ(rows[6]["n_failed"], 0);
    EXPECT_NE(run_program({"report", (dir_ / "o.jsonl").string()}).out.find("oracle is not a method"),
              std::string::npos);
}

TEST_F(Eval, ThreadsAndShardsDoNotChangeAByteOfTheReport) {
    evaluate("one.jsonl", {"-t", "1"});
    evaluate("two.jsonl", {"-t", "2"});
    Args shards;
    std::string all;
    for (int i = 1; i <= 4; ++i) {
        shards.push_back("shard" + std::to_string(i) + ".jsonl");
        evaluate(shards.back(), {"--shard", std::to_string(i) + "/4"});
        all += read_file(dir_ / shards.back());
    }
    write_file(dir_ / "all.jsonl", all);
    const std::string expected = report({"one.jsonl"});
    EXPECT_EQ(report({"two.jsonl"}), expected);
    EXPECT_EQ(report(shards), expected);
    EXPECT_EQ(report({"all.jsonl"}), expected);
}

TEST_F(Eval, KilledAnywhereItGoesOn) {
    evaluate("whole.jsonl");
    const std::string expected = report({"whole.jsonl"});
    const std::string whole = read_file(dir_ / "whole.jsonl");
    // what any kill leaves is a beginning of the file: ten of them, at no particular bytes
    for (size_t i = 0; i < 10; ++i) {
        write_file(dir_ / "cut.jsonl", whole.substr(0, whole.size() * (2 * i + 1) / 20 + 7 * i));
        evaluate("cut.jsonl");
        EXPECT_EQ(report({"cut.jsonl"}), expected) << i;
    }
    const Finished again = run_program(args("whole.jsonl"));
    EXPECT_NE(again.err.find("6 samples were there"), std::string::npos) << again.err;
    EXPECT_EQ(read_file(dir_ / "whole.jsonl"), whole);
}

TEST_F(Eval, SurvivesKillMinusNine) {
    write_data(40);
    evaluate("whole.jsonl");
    const std::string expected = report({"whole.jsonl"});
    for (int i = 1; i <= 10; ++i) {
        const Program program(args("killed.jsonl", {"-t", "2"}));
        std::this_thread::sleep_for(std::chrono::milliseconds(25 * i));
        program.kill(SIGKILL);
        static_cast<void>(program.wait());
    }
    evaluate("killed.jsonl");
    EXPECT_EQ(report({"killed.jsonl"}), expected);
}

TEST_F(Eval, QuestionsAboutAnImage) {
    const std::string image = fs::absolute(example("form_1.png")).string();
    nlohmann::json line = {{"id", 1}, {"image", image}};
    line["turns"] = {{{"prompt", "What is the score?"}, {"answer", "7"}},
                     {{"prompt", "What is the title?"}, {"answers", {"A", "B"}}}};
    write_file(dir_ / "image.jsonl", line.dump() + "\n");
    const Finished finished =
        run_program({"eval", "--data", (dir_ / "image.jsonl").string(), "--metrics",
                     "ppl,rouge_l,exact_match,anls,relaxed_accuracy,exact_match_next", "--methods", "all", "--keep",
                     "0.3", "-n", "12", "-o", (dir_ / "r.jsonl").string()});
    ASSERT_EQ(finished.exit_code, 0) << finished.err;
    const auto rows = nlohmann::json::parse(report({"r.jsonl"}));
    EXPECT_GE(rows.size(), 20U);
    for (const auto & row : rows) {
        EXPECT_EQ(row["n_failed"], 0) << row;
        for (const char * metric : {"ppl", "rouge_l", "exact_match", "anls", "relaxed_accuracy", "exact_match_next"}) {
            EXPECT_TRUE(row.contains(metric)) << row;
        }
    }
    EXPECT_EQ(rows[0]["rouge_l"], 1.0) << "full against itself";
    const std::string page = (dir_ / "r.html").string();
    EXPECT_EQ(run_program({"report", (dir_ / "r.jsonl").string(), "-o", page}).exit_code, 0);
    EXPECT_NE(read_file(page).find("data:image/png"), std::string::npos);
}

TEST_F(Eval, WhateverIsWrongIsOneSentence) {
    const auto with = [&](const std::string & option, const std::string & value) {
        Args all = args("r.jsonl");
        const auto at = std::find(all.begin(), all.end(), option);
        EXPECT_NE(at, all.end()) << option;
        *(at + 1) = value;
        return all;
    };
    expect_bad(with("--metrics", "ppl,bleu"), {"bleu", "rouge_l"});
    expect_bad(with("--methods", "prefixkv,nonsense"), {"nonsense"});
    expect_bad(with("--budget", "0"), {"(0, 1]"});
    expect_bad(with("--kv-type", "f32"), {"f32"});
    expect_bad(with("--data", (dir_ / "none.jsonl").string()), {"none.jsonl"});
    expect_bad(args("r.jsonl", {"--shard", "5/4"}), {"5/4"});
    expect_bad(args("r.jsonl", {"--keep", "2"}), {"(0, 1]"});
    expect_bad(args("r.jsonl", {"-n", "0"}), {"--n-predict"});
    make_small_model(dir_ / "narrow.gguf", 16);
    expect_bad(with("-m", (dir_ / "narrow.gguf").string()), {"q8_0", "32"});
    const std::string good = read_file(dir_ / "data.jsonl");
    const auto bad_line = [&](const std::string & line, const Args & parts) {
        write_file(dir_ / "data.jsonl", good + line + "\n");
        expect_bad(args("r.jsonl"), parts);
        const Finished skipped = run_program(args("skip.jsonl", {"--skip-bad"}));
        EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
        EXPECT_NE(skipped.err.find("1 left out"), std::string::npos) << skipped.err;
        fs::remove(dir_ / "r.jsonl");
        fs::remove(dir_ / "skip.jsonl");
    };
    bad_line("{", {"line 7", "not JSON"});
    bad_line(R"({"id": 1, "prompt": "Hi", "answer": ""})", {"line 7", "empty"});
    bad_line(R"({"id": 1, "prompt": "Hi", "answer": "x", "image": "none.png"})", {"line 7", "none.png"});
    bad_line(R"({"id": 1, "prompt_tokens": [5], "answer_tokens": [99999]})", {"line 7", "99999"});
}

TEST_F(Eval, ALineThatCannotBeMeasuredLosesNothing) {
    const std::string good = read_file(dir_ / "data.jsonl");
    write_file(dir_ / "data.jsonl", good + R"({"id": 1, "prompt_tokens": [5], "answer_tokens": [99999]})" + "\n");
    expect_bad(args("r.jsonl", {"-t", "1"}), {"line 7", "99999"});
    const std::string first = read_file(dir_ / "r.jsonl");
    EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 1 + 6 * (1 + 14));
    const Finished skipped = run_program(args("r.jsonl", {"--skip-bad"}));
    EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
    EXPECT_NE(skipped.err.find("6 samples were there, 1 left out"), std::string::npos) << skipped.err;
}

TEST_F(Eval, OutputsThatCannotBe) {
    const auto refused = [&](const std::string & path, int exit_code) {
        Args all = args("r.jsonl");
        all.back() = path;
        const Finished finished = run_program(all);
        EXPECT_EQ(finished.exit_code, exit_code) << path;
        EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
        EXPECT_NE(finished.err.find(path), std::string::npos) << finished.err;
    };
    refused((dir_ / "no-folder/r.jsonl").string(), 2);
    refused(dir_.path().string(), 2);
    if (fs::exists("/dev/full")) {
        refused("/dev/full", 2);  // a full disk
    }
    write_file(dir_ / "other.txt", "something else\n");
    refused((dir_ / "other.txt").string(), 2);
    EXPECT_EQ(read_file(dir_ / "other.txt"), "something else\n");
    evaluate("r.jsonl");
    expect_bad(args("r.jsonl", {"--limit", "3"}), {"r.jsonl", "differs", "command"});
}

}  // namespace
}  // namespace cli_test
