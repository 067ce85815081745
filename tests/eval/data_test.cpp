// SPDX-License-Identifier: MIT
#include "eval/data.h"

#include <gtest/gtest.h>

#include <set>

#include "eval/digest.h"
#include "io/scratch.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::Scratch;
using test::write_bytes;

const char kGood[] = R"({"id":"a","prompt":"Who?","answer":"I"})";

TEST(Data, ReadsEveryForm) {
    const Scratch dir;
    write_bytes(dir / "one.png", "x");
    write_bytes(dir / "two.png", "x");
    const std::string text = std::string(kGood) + "\n\r\n" +
                             R"({"id":7,"image":"one.png","prompt":"","answers":["x","y"],"kind":"form"})"
                             "\n"
                             R"({"id":"c","images":["two.png","one.png"],"turns":[{"prompt":"p","answer":"q"},)"
                             R"({"prompt":"r","answers":["s"]}]})"
                             "\n"
                             R"({"id":"d","group":"g","prompt_tokens":[1,2],"answer_tokens":[3]})";
    write_bytes(dir / "set.jsonl", text);
    const DataSet set = read_data(dir / "set.jsonl");
    EXPECT_EQ(set.sha256, sha256(text));
    ASSERT_EQ(set.samples.size(), 4U);
    EXPECT_EQ(set.samples[0].group, "a");
    EXPECT_EQ(set.samples[0].turns[0].answers, std::vector<std::string>{"I"});
    EXPECT_EQ(set.samples[1].id, "7");
    EXPECT_EQ(set.samples[1].line, 3U);
    EXPECT_EQ(set.samples[1].group, "one.png");
    EXPECT_EQ(set.samples[1].images, std::vector{dir / "one.png"});
    EXPECT_EQ(set.samples[1].turns[0].answers, (std::vector<std::string>{"x", "y"}));
    EXPECT_EQ(set.samples[2].images, (std::vector{dir / "two.png", dir / "one.png"}));
    ASSERT_EQ(set.samples[2].turns.size(), 2U);
    EXPECT_EQ(set.samples[2].turns[1].prompt, "r");
    EXPECT_EQ(set.samples[3].group, "g");
    EXPECT_EQ(set.samples[3].turns[0].prompt_tokens, (std::vector<int32_t>{1, 2}));
    EXPECT_EQ(set.samples[3].turns[0].answer_tokens, std::vector<int32_t>{3});
}

TEST(Data, EveryErrorNamesTheLineAndWhatIsWrong) {
    const std::pair<const char *, const char *> cases[] = {
        {"{", "it is not JSON"},
        {"[1]", "it is array; expected a JSON object"},
        {R"({"prompt":"p","answer":"a"})", "id is missing"},
        {R"({"id":true,"prompt":"p","answer":"a"})", "id is boolean; expected a string"},
        {R"({"id":"a","prompt":"p","answer":"a"})", "the id a was there before"},
        {R"({"id":"b","answer":"a"})", "prompt is missing (or prompt_tokens)"},
        {R"({"id":"b","prompt":5,"answer":"a"})", "prompt is number; expected a string"},
        {R"({"id":"b","prompt":"p"})", "answer is missing (or answers)"},
        {R"({"id":"b","prompt":"p","answer":""})", "an answer is empty"},
        {R"({"id":"b","prompt":"p","answers":[]})", "answers is empty; expected a list of strings"},
        {R"({"id":"b","prompt":"p","answers":["x",3]})", "an entry of answers is number"},
        {R"({"id":"b","prompt":"p","answer":"a","answers":["a"]})", "answer and answers are both given"},
        {R"({"id":"b","image":"no.png","prompt":"p","answer":"a"})", "there is no image"},
        {R"({"id":"b","images":[],"prompt":"p","answer":"a"})", "images is empty"},
        {R"({"id":"b","prompt_tokens":[],"answer_tokens":[1]})", "prompt_tokens is empty; expected a list of at least"},
        {R"({"id":"b","prompt_tokens":[1],"answer_tokens":[]})", "answer_tokens is empty; expected a list of at least"},
        {R"({"id":"b","prompt_tokens":[1,-2],"answer_tokens":[1]})", "prompt_tokens holds -2"},
        {R"({"id":"b","prompt_tokens":[1.5],"answer_tokens":[1]})", "prompt_tokens holds 1.5"},
        {R"({"id":"b","prompt_tokens":[4294967296],"answer_tokens":[1]})", "prompt_tokens holds 4294967296"},
        {R"({"id":"b","prompt_tokens":[1]})", "answer_tokens is missing"},
        {R"({"id":"b","prompt":"p","answer_tokens":[1]})", "answer_tokens is given beside prompt"},
        {R"({"id":"b","prompt":"p","prompt_tokens":[1],"answer":"a"})", "prompt and prompt_tokens are both given"},
        {R"({"id":"b","turns":[]})", "turns is no list of questions"},
        {R"({"id":"b","turns":["p"]})", "an entry of turns is string"},
        {R"({"id":"b","turns":[{"prompt":"p"}]})", "answer is missing"},
        {R"({"id":"b","prompt":"p","answer":"a","turns":[{"prompt":"p","answer":"a"}]})", "prompt and turns are both"},
    };
    const Scratch dir;
    for (const auto & [line, part] : cases) {
        write_bytes(dir / "set.jsonl", std::string(kGood) + "\n\n" + line + "\n");
        const std::string sentence = error_of([&] { (void)read_data(dir / "set.jsonl"); });
        EXPECT_NE(sentence.find("set.jsonl line 3: "), std::string::npos) << sentence;
        EXPECT_NE(sentence.find(part), std::string::npos) << sentence;

        const DataSet set = read_data(dir / "set.jsonl", {.skip_bad = true});
        EXPECT_EQ(set.samples.size(), 1U);
        ASSERT_EQ(set.bad.size(), 1U);
        EXPECT_EQ(set.bad[0].line, 3U);
        EXPECT_EQ(set.bad[0].why, sentence);
    }
}

TEST(Data, FilesThatCannotServe) {
    const Scratch dir;
    const auto sentence = [](const auto & path, bool skip) {
        return error_of([&] { (void)read_data(path, {.skip_bad = skip}); });
    };
    EXPECT_NE(sentence(dir / "none", false).find("there is no such file"), std::string::npos);
    EXPECT_NE(sentence(dir / "", false).find("folder"), std::string::npos);
    write_bytes(dir / "empty", "\n\n");
    EXPECT_NE(sentence(dir / "empty", true).find("no usable line"), std::string::npos);
    write_bytes(dir / "bad", "{");
    EXPECT_NE(sentence(dir / "bad", true).find("line 1: it is not JSON"), std::string::npos);
}

TEST(Data, CalibrationNeedsPromptsOnly) {
    const Scratch dir;
    write_bytes(dir / "set", R"({"id":"a","prompt":"p"})"
                             "\n\n"
                             R"({"prompt_tokens":[5]})");
    const DataSet set = read_data(dir / "set", {.prompts_only = true});
    EXPECT_EQ(set.samples[1].id, "line 3");
    EXPECT_TRUE(set.samples[0].turns[0].answers.empty());
    EXPECT_EQ(set.samples[1].turns[0].prompt_tokens, std::vector<int32_t>{5});
}

TEST(Data, ShardsPartTheLimitedSet) {
    using Indices = std::vector<size_t>;
    EXPECT_EQ(select_samples(5, 0, {}), (Indices{0, 1, 2, 3, 4}));
    EXPECT_EQ(select_samples(10, 4, {}), (Indices{0, 2, 5, 7}));
    EXPECT_EQ(select_samples(3, 8, {}), (Indices{0, 1, 2}));
    EXPECT_EQ(select_samples(10, 4, parse_shard("2/2")), (Indices{2, 7}));
    EXPECT_EQ(select_samples(2, 0, parse_shard("3/3")), Indices{});
    for (const char * text : {"", "0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2"}) {
        EXPECT_NE(error_of([&] { (void)parse_shard(text); }, ErrorCode::invalid_argument).find("I/N"),
                  std::string::npos);
    }
}

TEST(Data, TheSplitsOfTheRepositoryAreWhatTheirSheetSays) {
    const std::filesystem::path data = std::filesystem::path(KVSIEVE_TEST_DATA) / "../../data";
    std::set<std::string> images;
    const auto read = [&](const char * name, size_t n_images, size_t n_lines) {
        const DataSet set = read_data(data / name / (std::string(name) + ".jsonl"));
        const size_t before = images.size();
        for (const Sample & sample : set.samples) {
            images.insert(sample.group);
        }
        EXPECT_EQ(images.size() - before, n_images) << name;  // and none of another split
        EXPECT_EQ(set.samples.size(), n_lines) << name;
    };
    read("calibration", 24, 116 + 17 + 24);
    read("development", 40, 188 + 27 + 40);
    read("final", 220, 1085 + 152 + 220);
    const DataSet text = read_data(data / "text" / "text.jsonl");
    EXPECT_EQ(text.samples.size(), 21U);
    for (const Sample & sample : text.samples) {
        EXPECT_EQ(sample.turns[0].prompt_tokens.size(), 1024U);
        EXPECT_EQ(sample.turns[0].answer_tokens.size(), 128U);
    }
}

}  // namespace
}  // namespace kvsieve
