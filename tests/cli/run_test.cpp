// SPDX-License-Identifier: MIT
// kvsieve run: what it prints where, and that the options do what they say.
#include <nlohmann/json.hpp>

#include "kvsieve/policy.h"
#include "program.h"
#include "vision/image.h"

namespace cli_test {
namespace {

using Args = std::vector<std::string>;
using Json = nlohmann::json;

const TempFolder & folder() {
    static const TempFolder folder;
    return folder;
}

const std::string & small_model() {
    static const std::string path = [] {
        const fs::path file = folder() / "small.gguf";
        make_small_model(file);
        return file.string();
    }();
    return path;
}

/// A model with room for a very long answer.
const std::string & endless_model() {
    static const std::string path = [] {
        const fs::path file = folder() / "endless.gguf";
        const Finished made = run_program({"make-model", "-o", file.string(), "--layers", "1", "--width", "32",
                                           "--heads", "2", "--head-dim", "16", "--ff", "32", "--ctx", "10000000"});
        EXPECT_EQ(made.exit_code, 0) << made.err;
        return file.string();
    }();
    return path;
}

Args with(Args args, const Args & more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
}

Args text_run(const Args & more = {}, const std::string & prompt = "Hello there") {
    return with({"run", "-m", small_model(), "-p", prompt, "-n", "12", "-t", "1"}, more);
}

Args image_run(const Args & more = {}) {
    return with({"run", "--image", example("form_1.png"), "-p", "What is the score?", "-n", "12", "-t", "1"}, more);
}

Finished good(const Args & args, const std::string & input = "") {
    Finished finished = run_program(args, input);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return finished;
}

std::vector<Json> json_lines(const std::string & text) {
    std::vector<Json> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        lines.push_back(Json::parse(line));
    }
    return lines;
}

Json json_of(const Args & args) {
    const Finished finished = good(with(args, {"--json"}));
    EXPECT_EQ(finished.err, "");
    EXPECT_TRUE(finished.out.ends_with('\n'));
    const std::vector<Json> lines = json_lines(finished.out);
    EXPECT_EQ(lines.size(), 1U);
    return lines.at(0);
}

TEST(Run, StdoutIsTheAnswerAndStderrTheStatistics) {
    const Finished finished = good(text_run());
    const Json json = json_of(text_run());
    EXPECT_EQ(finished.out, json["answer"].get<std::string>() + "\n");
    EXPECT_EQ(finished.out.find("KV cache"), std::string::npos);
    for (const char * word : {"tokens", "KV cache", "kept", "freed", "reserved", "prefill", "decode", "tok/s"}) {
        EXPECT_NE(finished.err.find(word), std::string::npos) << word;
    }
    EXPECT_EQ(finished.err.find('\x1b'), std::string::npos) << "escape sequences outside a terminal";
}

TEST(Run, JsonSaysWhatIsInTheCache) {
    const Json json = json_of(text_run({"--method", "prefixkv", "--keep", "0.5"}));
    EXPECT_EQ(json["method"], "prefixkv");
    EXPECT_EQ(json["keep"], 0.5);
    EXPECT_EQ(json["prompt"]["tokens"].get<int>(), json["prompt"]["text"].get<int>());
    EXPECT_EQ(json["prompt"]["visual"], 0);
    uint64_t rows = 0;
    ASSERT_EQ(json["kv"]["rows_of"].size(), 2U);
    for (const Json & layer : json["kv"]["rows_of"]) {
        ASSERT_EQ(layer.size(), 2U);
        for (const Json & head : layer) {
            rows += head.get<uint64_t>();
        }
    }
    constexpr uint64_t kRowBytes = 2 * 16 * 2;  // key and value of 16 f16 elements
    EXPECT_EQ(json["kv"]["rows"], rows);
    EXPECT_EQ(json["kv"]["bytes_held"], rows * kRowBytes);
    EXPECT_EQ(json["kv"]["bytes_full"], json["n_processed"].get<uint64_t>() * 4 * kRowBytes);
    EXPECT_EQ(json["kv"]["bytes_freed"].get<uint64_t>() + json["kv"]["bytes_held"].get<uint64_t>(),
              json["kv"]["bytes_full"].get<uint64_t>());
    EXPECT_GT(json["kv"]["bytes_freed"], 0);
    EXPECT_GE(json["kv"]["bytes_reserved"], json["kv"]["bytes_held"]);
    EXPECT_EQ(json["plan"]["n_kept"].size(), 2U);
    EXPECT_TRUE(json["plan"].contains("threshold"));
    EXPECT_LE(json["tokens"].size(), 12U);
    for (const char * key : {"vision_ms", "prefill_ms", "plan_ms", "compact_ms", "decode_ms", "decode_tok_s"}) {
        EXPECT_TRUE(json["timings"][key].is_number()) << key;
    }
    EXPECT_EQ(json["model"]["n_layer"], 2);
}

TEST(Run, WhoAsksForLessGetsSieveAndRowTypesOnDemand) {
    const Json json = json_of(image_run({"--keep", "0.1"}));
    EXPECT_EQ(json["method"], "sieve");
    EXPECT_EQ(json["kv"]["type"], "f16");
    for (const Args & less : {Args{"--keep", "0.1"}, Args{"--kv-budget", "10%"}}) {
        const Json chosen = json_of(image_run(with(less, {"--kv-type", "auto"})));
        EXPECT_EQ(chosen["method"], "sieve");
        uint64_t heads = 0;
        for (const auto & [type, n] : chosen["kv"]["heads_of_type"].items()) {
            heads += n.get<uint64_t>();
        }
        EXPECT_EQ(heads, 8U * 4);
        EXPECT_GT(chosen["kv"]["rows"].get<uint64_t>(), 2 * json["kv"]["rows"].get<uint64_t>());
        EXPECT_LE(chosen["kv"]["bytes_held"].get<double>(), 0.13 * chosen["kv"]["bytes_full"].get<double>());
        EXPECT_EQ(chosen["plan"]["row_types"].size(), 8U);
    }
    const Finished said = good(image_run({"--keep", "0.1", "--kv-type", "auto"}));
    EXPECT_NE(said.err.find(" heads"), std::string::npos) << said.err;
}

TEST(Run, KeepOneOfEveryMethodAnswersLikeFull) {
    std::string words;  // more tokens than any method's window
    for (int i = 0; i < 100; ++i) {
        words += " word";
    }
    const Json full_text = json_of(text_run({}, words));
    EXPECT_GT(full_text["prompt"]["tokens"], 100);
    const Json full_image = json_of(image_run());
    EXPECT_EQ(full_image["prompt"]["visual"], 576);
    for (const kvsieve::MethodInfo & method : kvsieve::methods()) {
        if (method.keep_of.empty()) {
            continue;
        }
        const Args options{"--method", std::string(method.name), "--keep", "1.0"};
        EXPECT_EQ(json_of(image_run(options))["tokens"], full_image["tokens"]) << method.name;
        if (!method.traits.visual) {
            EXPECT_EQ(json_of(text_run(options, words))["tokens"], full_text["tokens"]) << method.name;
        }
    }
}

TEST(Run, ChartShowsBudgetsAndOverlayIsAPicture) {
    const fs::path picture = folder() / "kept.png";
    const Finished finished = good(image_run({"--method", "prefixkv", "--keep", "0.2", "--overlay", picture.string()}));
    EXPECT_NE(finished.err.find("per layer (prefixkv, keep 0.2)"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("\n  7 "), std::string::npos) << "a bar for each of 8 layers: " << finished.err;
    const kvsieve::Image image = kvsieve::load_image(picture);
    EXPECT_GT(image.width, 600);
    EXPECT_GT(image.height, 300);
    for (const auto & entry : fs::directory_iterator(folder().path())) {
        EXPECT_NE(entry.path().extension(), ".tmp");
    }
}

TEST(Run, ReadsTheQuestionFromStandardInput) {
    const Finished typed = good({"run", "-m", small_model(), "-p", "Hello there", "-n", "6"});
    const Finished piped = good({"run", "-m", small_model(), "-p", "-", "-n", "6"}, "Hello there\n");
    EXPECT_EQ(piped.out, typed.out);
}

TEST(Run, GrammarBindsTheAnswer) {
    const Finished inline_grammar = good(text_run({"--grammar", "root ::= \"yes!\" | \"no!\""}));
    EXPECT_TRUE(inline_grammar.out == "yes!\n" || inline_grammar.out == "no!\n") << inline_grammar.out;
    write_file(folder() / "answer.gbnf", "root ::= \"only this\"\n");
    EXPECT_EQ(good(text_run({"--grammar", "@" + (folder() / "answer.gbnf").string()})).out, "only this\n");
}

TEST(Run, StopTextEndsTheAnswer) {
    const Json json = json_of(text_run({"--grammar", "root ::= \"abcdefgh\"", "--stop", "ef"}));
    EXPECT_EQ(json["answer"], "abcd");
    EXPECT_EQ(json["finish"], "stop_text");
}

TEST(Run, SeedsRepeatAndTemperatureVaries) {
    const auto answer = [](const std::string & seed) {
        return json_of(
            text_run({"--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", seed}))["tokens"];
    };
    EXPECT_EQ(answer("3"), answer("3"));
    EXPECT_NE(answer("3"), answer("4"));
}

TEST(Run, ContextLimitEndsTheAnswer) {
    const Json json = json_of({"run", "-m", endless_model(), "-p", "Hi", "-t", "1", "--chat-template", "raw", "-c",
                               "20", "--grammar", "root ::= \"a\" root"});
    EXPECT_EQ(json["finish"], "context");
    EXPECT_LE(json["n_processed"], 20);
}

TEST(Run, QuantisedRowsAreSmaller) {
    // Rows of 16 elements do not fill a block of 32, so this is the embedded model's head size of 64.
    const auto bytes = [](const std::string & type) {
        const Json json = json_of({"run", "-p", "Hello", "-n", "4", "-t", "1", "--kv-type", type});
        return json["kv"]["bytes_held"].get<double>() / json["kv"]["rows"].get<double>();
    };
    EXPECT_EQ(bytes("f16"), 2 * 64 * 2);
    EXPECT_EQ(bytes("q8_0"), 2 * 68);
    EXPECT_EQ(bytes("q4_0"), 2 * 36);
}

TEST(Run, LearnsProbesFromItsAnswers) {
    const TempFolder own;
    const std::string file = (own / "probes.gguf").string();
    const Finished first = good(text_run({"--learn", file}));
    EXPECT_NE(first.err.find("12 probes that stand for 12 tokens of 1 answers"), std::string::npos) << first.err;
    const Finished second = good(text_run({"--learn", file}, "Another question"));
    EXPECT_NE(second.err.find("24 probes that stand for 24 tokens of 2 answers"), std::string::npos) << second.err;
    EXPECT_EQ(first.out, good(text_run()).out);
    good(text_run({"--method", "sieve", "--keep", "0.5", "--probes", file}));
    // of the embedded model's probes, which have more answers behind them
    const Finished embedded = good(image_run({"--learn", (own / "more.gguf").string()}));
    EXPECT_EQ(embedded.err.find(" of 1 answers"), std::string::npos) << embedded.err;

    for (const Args & more :
         {Args{"--method", "prefixkv", "--keep", "0.5"}, {"-i"}, {"--decode-policy", "window", "--decode-cap", "64"}}) {
        const Finished refused = run_program(text_run(with({"--learn", file}, more)));
        EXPECT_EQ(refused.exit_code, 2);
        EXPECT_NE(refused.err.find("--learn"), std::string::npos) << refused.err;
    }
    EXPECT_EQ(run_program(text_run({"--learn", "/nowhere/probes.gguf"})).exit_code, 2);
}

TEST(Conversation, EncodesTheImageOnce) {
    const Finished finished = good({"run", "-i", "--json", "--image", example("form_1.png"), "--method", "prefixkv",
                                    "--keep", "0.5", "-n", "8", "-t", "1"},
                                   "What is the score?\n\nWhat is the name?\n");
    const std::vector<Json> turns = json_lines(finished.out);
    ASSERT_EQ(turns.size(), 2U);
    EXPECT_EQ(turns[0]["turn"], 1);
    EXPECT_EQ(turns[0]["prompt"]["visual"], 576);
    EXPECT_GT(turns[0]["timings"]["vision_ms"], 0.0);
    EXPECT_EQ(turns[1]["turn"], 2);
    EXPECT_EQ(turns[1]["prompt"]["visual"], 0);
    EXPECT_EQ(turns[1]["timings"]["vision_ms"], 0.0);
    EXPECT_EQ(turns[1]["images"].size(), 1U);
    EXPECT_GT(turns[1]["n_processed"], turns[0]["n_processed"]);
    EXPECT_LT(turns[1]["kv"]["bytes_held"], turns[1]["kv"]["bytes_full"]);
}

TEST(Conversation, BeginsWithTheQuestionOfTheCommandLine) {
    const Finished finished =
        good({"run", "-i", "-m", small_model(), "-p", "One", "-n", "4", "--json"}, "Two\n/reset\nThree\n/quit\nFour\n");
    const std::vector<Json> turns = json_lines(finished.out);
    ASSERT_EQ(turns.size(), 3U);
    EXPECT_GT(turns[1]["n_processed"], turns[0]["n_processed"]);
    EXPECT_EQ(turns[2]["turn"], 1) << "after /reset the conversation begins again";
}

TEST(Conversation, StatsAndAnswersGoToTheirStreams) {
    const Finished finished = good({"run", "-i", "-m", small_model(), "-n", "4"}, "One\n/stats\n");
    EXPECT_NE(finished.err.find("KV cache"), std::string::npos);
    EXPECT_EQ(finished.out.find("KV"), std::string::npos);
    EXPECT_EQ(finished.err.find("> "), std::string::npos) << "no prompt where nobody types";
}

TEST(Conversation, ABadLineOfAScriptEndsIt) {
    expect_refused(run_program({"run", "-i", "-m", small_model()}, "/image /no/such.png What?\nOne\n"),
                   {"/no/such.png"});
    expect_refused(run_program({"run", "-i", "-m", small_model()}, "/imagine\n"), {"'/imagine'", "/image"});
    expect_refused(run_program({"run", "-i", "-m", small_model()}, "/stats\n"), {"/stats"});
}

TEST(Interrupt, EndsTheAnswerPolitely) {
    const Program program(
        {"run", "-m", endless_model(), "-p", "Hi", "-n", "100000000", "-t", "1", "--grammar", "root ::= \"a\" root"});
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    program.kill(SIGINT);
    const Finished finished = program.wait();
    EXPECT_EQ(finished.exit_code, 1);
    EXPECT_TRUE(finished.err.starts_with("kvsieve: ")) << finished.err;
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    EXPECT_TRUE(finished.out.starts_with("aaa")) << "the answer was streamed";
}

TEST(Help, NamesEveryCommandAndOption) {
    const Finished help = good({"--help"});
    for (const char * command : {"run", "methods", "plan", "observe", "profile", "make-model"}) {
        EXPECT_NE(help.out.find(command), std::string::npos);
        EXPECT_FALSE(good({command, "--help"}).out.empty());
    }
    const Finished run = good({"run", "--help"});
    for (const char * option : {"--image", "--method", "--keep", "--kv-type", "--overlay", "--grammar", "--json"}) {
        EXPECT_NE(run.out.find(option), std::string::npos);
    }
    EXPECT_TRUE(good({"--version"}).out.starts_with("kvsieve "));
}

}  // namespace
}  // namespace cli_test
