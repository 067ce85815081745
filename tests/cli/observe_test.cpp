// SPDX-License-Identifier: MIT
// kvsieve observe and profile, and the options that cap the cache: files that the other commands take back, and one
// sentence for everything wrong.
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "kvsieve/policy.h"
#include "program.h"

namespace cli_test {
namespace {

using Args = std::vector<std::string>;
using Json = nlohmann::json;

Args with(Args args, const Args & more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
}

Json json_of(const Args & args) {
    const Finished finished = run_program(with(args, {"--json"}));
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return Json::parse(finished.out);
}

const Args & question() {
    static const Args args{"--image", example("form_1.png"), "-p", "What is the score?", "-t", "1"};
    return args;
}

TEST(Observe, PlanOfTheFileIsTheRunsOwn) {
    const TempFolder folder;
    const std::string file = (folder / "obs.npz").string();
    const Finished observed = run_program(with({"observe", "-o", file}, question()));
    ASSERT_EQ(observed.exit_code, 0) << observed.err;
    EXPECT_EQ(observed.out, "");
    EXPECT_NE(observed.err.find("visual"), std::string::npos);
    for (const kvsieve::MethodInfo & info : kvsieve::methods()) {
        Args method{"--method", std::string(info.name)};
        if (!info.keep_of.empty()) {
            method = with(method, {"--keep", "0.3"});
        }
        const Json planned = json_of(with({"plan", file}, method));
        const Json run = json_of(with(with({"run", "-n", "0"}, question()), method));
        ASSERT_EQ(planned["n_kept"].size(), run["kv"]["rows_of"].size()) << info.name;
        for (size_t il = 0; il < planned["n_kept"].size(); ++il) {
            const Json & n = planned["n_kept"][il];
            for (size_t g = 0; g < run["kv"]["rows_of"][il].size(); ++g) {
                EXPECT_EQ(n.is_array() ? n[g] : n, run["kv"]["rows_of"][il][g]) << info.name << " " << il;
            }
        }
        EXPECT_EQ(planned.value("forget", Json()), run["plan"].value("forget", Json())) << info.name;
    }
}

TEST(Observe, WritesOnlyWhatOneMethodSees) {
    const TempFolder folder;
    const std::string all = (folder / "all.npz").string(), one = (folder / "one.npz").string();
    ASSERT_EQ(run_program(with({"observe", "-o", all}, question())).exit_code, 0);
    ASSERT_EQ(run_program(with({"observe", "-o", one, "--method", "prefixkv"}, question())).exit_code, 0);
    EXPECT_LT(fs::file_size(one) * 10, fs::file_size(all));
    EXPECT_EQ(json_of({"plan", one, "--method", "prefixkv", "--keep", "0.2"})["kept"],
              json_of({"plan", all, "--method", "prefixkv", "--keep", "0.2"})["kept"]);
    expect_refused(run_program({"plan", one, "--method", "knorm", "--keep", "0.2"}), {"keys", one});
}

TEST(Observe, RefusesWithASentence) {
    const TempFolder folder;
    const std::string file = (folder / "obs.npz").string();
    expect_refused(run_program({"observe", "-p", "x"}), {"--output"});
    expect_refused(run_program({"observe", "-o", file}), {"--prompt"});
    expect_refused(run_program({"observe", "-o", file, "-p", "x", "--method", "nothing"}), {"nothing", "prefixkv"});
    expect_refused(run_program({"observe", "-o", file, "-p", "x", "--image", "/nowhere.png"}), {"/nowhere.png"});
    expect_refused(run_program({"observe", "-o", file, "-p", "x", "-m", "/nowhere.gguf"}), {"/nowhere.gguf"});
    expect_refused(run_program({"observe", "-o", "/nowhere/obs.npz", "-p", "x"}), {"/nowhere/obs.npz"});
    EXPECT_FALSE(fs::exists(file));
}

TEST(Profile, IsTheMeanOfTheSamplesBudgets) {
    const TempFolder folder;
    const std::string data = (folder / "calib.jsonl").string(), file = (folder / "profile.json").string();
    fs::copy(example("form_1.png"), folder / "a.png");
    write_file(data,
               "{\"prompt\": \"What is the score?\", \"image\": \"a.png\"}\n\n"
               "{\"prompt\": \"What is the name of it, and what is the score?\", \"images\": [\"a.png\"]}\n");
    const Finished made = run_program({"profile", "--data", data, "--keep", "0.3", "-o", file, "-t", "1"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    EXPECT_EQ(made.out, "");
    const Json profile = Json::parse(read_file(file));
    std::vector<double> mean;
    for (const char * prompt : {"What is the score?", "What is the name of it, and what is the score?"}) {
        const Json run = json_of({"run", "--image", (folder / "a.png").string(), "-p", prompt, "-n", "0", "-t", "1",
                                  "--method", "prefixkv", "--keep", "0.3"});
        EXPECT_EQ(profile["model_fingerprint"], run["model"]["fingerprint"]);
        const Json & forget = run["plan"]["forget"];
        mean.resize(forget.size());
        for (size_t il = 0; il < mean.size(); ++il) {
            mean[il] += forget[il].get<double>() / run["prompt"]["tokens"].get<double>() / 2.0;
        }
    }
    ASSERT_EQ(profile["forget"].size(), mean.size());
    for (size_t il = 0; il < mean.size(); ++il) {
        EXPECT_NEAR(profile["forget"][il].get<double>(), mean[il], 1e-12) << il;
    }
    const Json run = json_of(with(with({"run", "-n", "0"}, question()), {"--method", "prefixkv", "--profile", file}));
    EXPECT_LT(run["kv"]["rows"].get<double>(), 0.4 * run["n_processed"].get<double>() *
                                                   run["model"]["n_layer"].get<double>() *
                                                   run["model"]["n_head_kv"].get<double>());
    const fs::path other = folder / "other.gguf";
    make_small_model(other);
    Json foreign = profile;
    foreign["forget"] = {0.5, 0.5};
    write_file(folder / "foreign.json", foreign.dump());
    expect_refused(run_program({"run", "-m", other.string(), "-p", "x", "--method", "prefixkv", "--profile",
                                (folder / "foreign.json").string()}),
                   {"profile", "fingerprint"});
}

TEST(Profile, TakesTheSamplesThatWereChosen) {
    const TempFolder folder;
    const auto made_of = [&](const std::string & lines, const Args & more) {
        const std::string data = (folder / "calib.jsonl").string(), file = (folder / "profile.json").string();
        write_file(data, lines);
        const Finished made = run_program(with({"profile", "--data", data, "--keep", "0.3", "-o", file}, more));
        EXPECT_EQ(made.exit_code, 0) << made.err;
        return Json::parse(read_file(file))["forget"];
    };
    const std::string text = "{\"prompt\": \"What is the score of the first and of the last row?\"}\n";
    const std::string tokens = "{\"prompt_tokens\": [9, 8, 7, 9, 8, 7, 6, 5, 4, 3, 12, 13, 14, 15, 16, 17]}\n";
    const Json of_text = made_of(text, {}), of_tokens = made_of(tokens, {});
    EXPECT_NE(of_text, of_tokens);
    EXPECT_EQ(made_of(text + tokens, {"--shard", "2/2"}), of_tokens);
    EXPECT_EQ(made_of(tokens + text + text, {"--limit", "1"}), of_tokens);
}

TEST(Profile, ProbesGoOnAfterAKill) {
    const TempFolder folder;
    const std::string data = (folder / "calib.jsonl").string();
    std::string lines;
    for (int i = 0; i < 30; ++i) {
        lines += "{\"prompt_tokens\": [" + std::to_string(20 + i) + ", 8, 7, 9, 8, 7, 6, 5, 4, 3, 12, 13, 14, 15]}\n";
    }
    write_file(data, lines);
    const auto args = [&](const std::string & file, const Args & more = {}) {
        return with({"profile", "--method", "sieve", "--data", data, "-n", "8", "-o", (folder / file).string()}, more);
    };
    ASSERT_EQ(run_program(args("whole.gguf")).exit_code, 0);
    EXPECT_FALSE(fs::exists(folder / "whole.gguf.part"));
    const fs::path part = folder / "killed.gguf.part";
    {
        const Program program(args("killed.gguf"));
        std::error_code none;
        while (!fs::exists(folder / "killed.gguf") && (!fs::exists(part) || fs::file_size(part, none) < 5000)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        program.kill(SIGKILL);
        static_cast<void>(program.wait());
    }
    ASSERT_TRUE(fs::exists(part)) << "it was done before it was killed";
    fs::resize_file(part, fs::file_size(part) - 3);
    expect_refused(run_program(args("killed.gguf", {"--max-rows", "3"})), {"killed.gguf.part", "other options"});
    const Finished resumed = run_program(args("killed.gguf"));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_NE(resumed.err.find("of 30 answers were there"), std::string::npos) << resumed.err;
    EXPECT_EQ(read_file(folder / "killed.gguf"), read_file(folder / "whole.gguf"));
    EXPECT_FALSE(fs::exists(part));
}

TEST(Profile, RefusesWithASentence) {
    const TempFolder folder;
    const std::string data = (folder / "calib.jsonl").string(), file = (folder / "profile.json").string();
    const auto refuse = [&](const std::string & text, const std::vector<std::string> & parts) {
        write_file(data, text);
        expect_refused(run_program({"profile", "--data", data, "--keep", "0.3", "-o", file}), parts);
    };
    refuse("", {"no usable line", data});
    refuse("{}", {"line 1", "prompt"});
    refuse("{\"prompt\": \"x\"}\n[1]", {"line 2"});
    refuse("{\"prompt\": \"x\", \"image\": 3}", {"line 1", "image"});
    write_file(data, "{\"prompt\": \"x\"}");
    expect_refused(run_program({"profile", "--data", data, "-o", file}), {"--keep"});
    expect_refused(run_program({"profile", "--data", data, "--keep", "0.3"}), {"--output"});
    expect_refused(run_program({"profile", "--data", data, "--method", "snapkv", "--keep", "0.3", "-o", file}),
                   {"snapkv", "profile"});
    expect_refused(run_program({"profile", "--data", "/nowhere.jsonl", "--keep", "0.3", "-o", file}),
                   {"/nowhere.jsonl"});
    expect_refused(run_program({"profile", "--data", data, "--keep", "0.3", "-o", file, "--n-probe", "8"}),
                   {"--n-probe", "prefixkv"});
    expect_refused(run_program({"profile", "--data", data, "--keep", "0.3", "-o", file, "--shard", "2/2"}),
                   {"--shard 2/2", "1 samples"});
    expect_refused(run_program({"profile", "--data", data, "--method", "sieve", "--keep", "0.3", "-o", file}),
                   {"sieve", "--keep"});
    EXPECT_FALSE(fs::exists(file));
}

TEST(CacheCaps, TheLargestKeepThatFits) {
    const Args base = with(with({"run", "-n", "4"}, question()), {"--method", "prefixkv"});
    const Json rows = json_of(with(base, {"--kv-tokens", "100"}));
    const double extents = rows["model"]["n_layer"].get<double>() * rows["model"]["n_head_kv"].get<double>();
    EXPECT_LE(rows["kv"]["cap"]["prompt_rows"].get<double>(), 100.0 * extents);
    EXPECT_GT(rows["kv"]["cap"]["prompt_rows"].get<double>(), 95.0 * extents);
    EXPECT_EQ(rows["keep"], rows["kv"]["cap"]["keep"]);

    const Json share = json_of(with(base, {"--kv-budget", "20%", "--kv-type", "q8_0"}));
    const double full =
        share["prompt"]["tokens"].get<double>() * extents * share["model"]["head_dim"].get<double>() * 4;
    EXPECT_LE(share["kv"]["cap"]["prompt_bytes"].get<double>(), 0.2 * full);
    EXPECT_GT(share["kv"]["cap"]["prompt_bytes"].get<double>(), 0.19 * full);

    const Json bytes = json_of(with(base, {"--kv-budget", "1MiB"}));
    EXPECT_LE(bytes["kv"]["bytes_held"].get<uint64_t>(), uint64_t{1} << 20U);

    const Finished shown = run_program(with(base, {"--kv-tokens", "100"}));
    EXPECT_NE(shown.err.find("KV cap"), std::string::npos) << shown.err;
    EXPECT_NE(shown.err.find("found"), std::string::npos) << shown.err;
}

TEST(CacheCaps, DecodePolicyHoldsItsCap) {
    const Json json =
        json_of(with(with({"run", "-n", "40"}, question()), {"--decode-policy", "window", "--decode-cap", "64"}));
    if (json["timings"]["n_decoded"].get<int>() > 0) {
        for (const Json & layer : json["kv"]["rows_of"]) {
            for (const Json & rows : layer) {
                EXPECT_LE(rows.get<int>(), 64);
            }
        }
    }
}

TEST(CacheCaps, RefusesWithASentence) {
    const Args base = with({"run"}, question());
    const auto refuse = [&](const Args & more, const std::vector<std::string> & parts) {
        expect_refused(run_program(with(base, more)), parts);
    };
    refuse({"--kv-tokens", "0"}, {"--kv-tokens", "'0'"});
    refuse({"--kv-tokens", "many"}, {"--kv-tokens"});
    refuse({"--kv-budget", "0%"}, {"--kv-budget"});
    refuse({"--kv-budget", "101%"}, {"--kv-budget"});
    refuse({"--kv-budget", "64 bananas"}, {"--kv-budget", "64MiB"});
    refuse({"--method", "prefixkv", "--kv-budget", "20%", "--keep", "0.2"}, {"--kv-budget", "--keep"});
    refuse({"--method", "full", "--kv-tokens", "10"}, {"full"});
    refuse({"--method", "prefixkv", "--kv-budget", "10B"}, {"too small"});
    refuse({"--decode-policy", "lru"}, {"--decode-policy", "tova"});
    refuse({"--decode-policy", "tova"}, {"cap"});
    refuse({"--decode-cap", "8"}, {"cap"});
}

}  // namespace
}  // namespace cli_test
