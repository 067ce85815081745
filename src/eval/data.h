// SPDX-License-Identifier: MIT
// Data sets: JSON lines of images, questions and answers (docs/eval.md has the format).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// One question. Either texts or token numbers, which are taken literally.
struct Question {
    std::string prompt;
    std::vector<std::string> answers;    ///< the first one is what perplexity is measured on
    std::vector<int32_t> prompt_tokens;  ///< not empty: instead of `prompt`
    std::vector<int32_t> answer_tokens;  ///< not empty: instead of `answers`
};

/// One line: a conversation of one or more questions about the same images.
struct Sample {
    std::string id;
    size_t line = 0;  ///< 1-based, in the file
    std::vector<std::filesystem::path> images;
    std::vector<Question> turns;
    /// Samples of one group are not independent: the line's "group", else its first image as written, else its id.
    std::string group;
};

struct BadLine {
    size_t line = 0;
    std::string why;  ///< the sentence
};

struct DataSet {
    std::filesystem::path path;
    std::string sha256;  ///< of the file's bytes
    std::vector<Sample> samples;
    std::vector<BadLine> bad;  ///< with skip_bad only
};

struct DataOptions {
    bool skip_bad = false;      ///< collect bad lines in DataSet::bad instead of refusing the file
    bool prompts_only = false;  ///< a question may come without an answer, a sample without an id (its line's number)
};

/// Throws Error{bad_input} naming the file and the line: not JSON, a field missing or of another type, an empty
/// answer, a missing image, an id that was there before. A file that cannot be read, or without any good line, is
/// refused with skip_bad too.
[[nodiscard]] DataSet read_data(const std::filesystem::path & path, const DataOptions & options = {});

/// A part of the work: every `count`-th sample from `index` on.
struct Shard {
    size_t index = 0;  ///< 0-based
    size_t count = 1;
};

/// "1/4" to "4/4". Throws Error{invalid_argument}.
[[nodiscard]] Shard parse_shard(std::string_view text);

/// Indices into `n` samples: first `limit` of them spread evenly over the set (0 = all), then the shard's.
[[nodiscard]] std::vector<size_t> select_samples(size_t n, size_t limit, const Shard & shard);

}  // namespace kvsieve
