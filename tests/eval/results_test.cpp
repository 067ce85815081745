// SPDX-License-Identifier: MIT
#include "eval/results.h"

#include <gtest/gtest.h>

#include <limits>

#include "io/scratch.h"

namespace kvsieve {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::read_bytes;
using test::Scratch;
using test::write_bytes;

ResultsHeader small_header() {
    return {.version = "1.2",
            .command = "kvsieve eval --data x",
            .model = "tiny",
            .model_fingerprint = "abc",
            .data = "x.jsonl",
            .data_sha256 = "00",
            .n_samples = 3,
            .n_layer = 2,
            .n_head_kv = 1,
            .metrics = {"ppl", "anls"},
            .grid = {{.method = "full", .keep = 1.0},
                     {.method = "aircache", .params = {{"alpha", "0.8"}}, .budget = 0.2, .kv_type = "q8_0"}}};
}

CellResult cell_of(const ResultsHeader & header, size_t index, const std::string & sample) {
    return {.sample = sample,
            .group = sample + ".png",
            .key = header.grid[index],
            .keep = index == 0 ? 1.0 : 0.1875,
            .n_prompt = 10,
            .kv_bytes = 100 - 60 * index,
            .kv_bytes_full = 100,
            .n_tokens = 4,
            .nll = 1.1 + 0.1 * static_cast<double>(index),
            .metrics = {{"anls", 0.75}},
            .layer_rows = {10, 8},
            .strength = {0.5, 0.25}};
}

/// Writes what is missing of three samples, as an evaluation does.
void write_all(const fs::path & path) {
    const ResultsHeader header = small_header();
    ResultsFile file(path, header);
    for (const std::string sample : {"c", "a", "ö \"b\""}) {
        if (file.is_complete(sample)) {
            continue;
        }
        file.append(SampleFacts{.sample = sample, .gini = {0.5, 0.25}, .lorenz = {{0, 1}, {0, 1}}});
        for (size_t i = 0; i < header.grid.size(); ++i) {
            file.append(cell_of(header, i, sample));
        }
        EXPECT_TRUE(file.is_complete(sample));
    }
}

void expect_same(const Results & a, const Results & b) {
    EXPECT_EQ(a.cells, b.cells);
    EXPECT_EQ(a.samples, b.samples);
    EXPECT_EQ(a.n_complete, b.n_complete);
}

Results read_one(const fs::path & path) {
    return read_results(std::vector{path});
}

TEST(Results, WhatIsWrittenIsReadInGridAndSampleOrder) {
    const Scratch dir;
    write_all(dir / "r");
    const Results results = read_one(dir / "r");
    const ResultsHeader header = small_header();
    EXPECT_EQ(results.header.command, header.command);
    EXPECT_EQ(results.header.grid, header.grid);
    EXPECT_EQ(results.n_complete, 3);
    ASSERT_EQ(results.cells.size(), 6U);
    EXPECT_EQ(results.cells[0], cell_of(header, 0, "a"));
    EXPECT_EQ(results.cells[1].sample, "c");
    EXPECT_EQ(results.cells[5], cell_of(header, 1, "ö \"b\""));
    ASSERT_EQ(results.samples.size(), 3U);
    EXPECT_EQ(results.samples[0].gini, (std::vector{0.5, 0.25}));
}

TEST(Results, AFileCutAtAnyByteIsReadAndResumedToTheSameBytes) {
    const Scratch dir;
    write_all(dir / "whole");
    const std::string whole = read_bytes(dir / "whole");
    const size_t header_end = whole.find('\n') + 1;
    for (size_t n = 0; n <= whole.size(); ++n) {
        write_bytes(dir / "cut", whole.substr(0, n));
        if (n >= header_end) {
            EXPECT_LE(read_one(dir / "cut").cells.size(), 6U);
        } else {
            (void)error_of([&] { (void)read_one(dir / "cut"); });
        }
        write_all(dir / "cut");
        ASSERT_EQ(read_bytes(dir / "cut"), whole) << "cut at " << n;
    }
}

TEST(Results, ShardsConcatenateInAnyOrder) {
    const Scratch dir;
    write_all(dir / "whole");
    const ResultsHeader header = small_header();
    for (const std::string sample : {"a", "c", "ö \"b\""}) {
        ResultsFile file(dir / ("shard " + sample.substr(0, 1)), header);
        file.append(SampleFacts{.sample = sample, .gini = {0.5, 0.25}, .lorenz = {{0, 1}, {0, 1}}});
        file.append(cell_of(header, 1, sample));
        file.append(cell_of(header, 0, sample));
    }
    const std::vector<fs::path> shards{dir / "shard \xC3", dir / "shard a", dir / "shard c"};
    expect_same(read_results(shards), read_one(dir / "whole"));
    write_bytes(dir / "all", read_bytes(shards[1]) + read_bytes(shards[0]) + read_bytes(shards[2]));
    expect_same(read_one(dir / "all"), read_one(dir / "whole"));
    expect_same(read_results(std::vector{dir / "all", dir / "whole"}), read_one(dir / "whole"));
}

TEST(Results, OtherHeadersAreRefusedWithTheFieldThatDiffers) {
    const Scratch dir;
    write_all(dir / "r");
    const std::string before = read_bytes(dir / "r");
    ResultsHeader other = small_header();
    other.data_sha256 = "11";
    const std::string sentence = error_of([&] { ResultsFile(dir / "r", other); });
    EXPECT_NE(sentence.find("r line 1: its header differs from that of this run in data_sha256"), std::string::npos)
        << sentence;
    EXPECT_EQ(read_bytes(dir / "r"), before);

    ResultsFile(dir / "s", other);
    const std::string mixed = error_of([&] { (void)read_results(std::vector{dir / "r", dir / "s"}); });
    EXPECT_NE(mixed.find("s line 1: its header differs"), std::string::npos) << mixed;
    EXPECT_NE(mixed.find("cannot be mixed"), std::string::npos) << mixed;
}

TEST(Results, DamagedLinesAreNamed) {
    const Scratch dir;
    write_all(dir / "r");
    const std::string whole = read_bytes(dir / "r");
    const size_t header_end = whole.find('\n') + 1;
    const std::string header = whole.substr(0, header_end);
    const auto sentence = [&](const std::string & bytes) {
        write_bytes(dir / "bad", bytes);
        return error_of([&] { (void)read_one(dir / "bad"); });
    };
    EXPECT_NE(sentence("hello\n").find("bad line 1: it is no JSON object"), std::string::npos);
    EXPECT_NE(sentence(whole.substr(header_end)).find("line 1: the header is missing"), std::string::npos);
    EXPECT_NE(sentence(header + "{\"sample\":\n").find("line 2: it is no JSON object"), std::string::npos);
    const std::string cell =
        R"({"sample":"z","group":"z","method":"full","keep":1,"kv_type":"f16","n_prompt":1,"kv_bytes":1,"kv_bytes_full":1)";
    EXPECT_NE(sentence(header + R"({"sample":"z"})"
                                "\n")
                  .find("line 2: group is missing"),
              std::string::npos);
    EXPECT_NE(sentence(header + cell +
                       R"(,"n_tokens":1,"nll":null})"
                       "\n")
                  .find("nll is null"),
              std::string::npos);
    EXPECT_NE(sentence(header + cell +
                       R"(,"n_tokens":1})"
                       "\n")
                  .find("nll is missing"),
              std::string::npos);
    EXPECT_NE(sentence(header + cell +
                       R"(,"layer_rows":[-1]})"
                       "\n")
                  .find("layer_rows is -1"),
              std::string::npos);
    EXPECT_NE(sentence(header + cell + "}\n" + cell +
                       R"(,"text":"x"})"
                       "\n")
                  .find("a second, different line for full"),
              std::string::npos);
    std::string other = cell;
    other.replace(other.find("full"), 4, "h2o!");
    EXPECT_NE(sentence(header + other + "}\n").find("a cell of h2o! that the header's grid does not have"),
              std::string::npos);
    EXPECT_NE(sentence("").find("no whole line"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)read_one(dir / "none"); }).find("there is no such file"), std::string::npos);
}

TEST(Results, AForeignFileIsLeftAlone) {
    const Scratch dir;
    for (const char * const bytes : {"my notes", "my notes\nmore\n", "{}\n"}) {
        write_bytes(dir / "notes", bytes);
        (void)error_of([&] { ResultsFile(dir / "notes", small_header()); });
        EXPECT_EQ(read_bytes(dir / "notes"), bytes);
    }
}

TEST(Results, WriteErrorsAreOneSentence) {
    const Scratch dir;
    const auto sentence = [](const fs::path & path) {
        return error_of([&] { ResultsFile(path, small_header()); }, ErrorCode::io);
    };
    EXPECT_EQ(sentence("/dev/full"), "cannot write /dev/full: No space left on device");
    EXPECT_NE(sentence(dir / "no/r").find("No such file or directory"), std::string::npos);
    EXPECT_NE(sentence(dir / "").find("Is a directory"), std::string::npos);
    const ResultsFile held(dir / "r", small_header());
    EXPECT_NE(sentence(dir / "r").find("another process is writing it"), std::string::npos);
}

TEST(Results, WhatCannotBeReadBackIsNotWritten) {
    const Scratch dir;
    const ResultsHeader header = small_header();
    ResultsFile file(dir / "r", header);
    CellResult cell = cell_of(header, 0, "a");
    cell.nll = std::numeric_limits<double>::quiet_NaN();
    EXPECT_NE(error_of([&] { file.append(cell); }, ErrorCode::invalid_argument).find("nll is null"), std::string::npos);
    cell = cell_of(header, 0, "a");
    cell.key.method = "other";
    EXPECT_NE(error_of([&] { file.append(cell); }, ErrorCode::invalid_argument).find("no such cell"),
              std::string::npos);
    file.append(CellResult{.sample = "a", .group = "a", .key = header.grid[0], .error = "no visual token"});
    const Results results = read_one(dir / "r");
    ASSERT_EQ(results.cells.size(), 1U);
    EXPECT_EQ(results.cells[0].error, "no visual token");
}

}  // namespace
}  // namespace kvsieve
