// SPDX-License-Identifier: MIT
#include "eval/data.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/digest.h"
#include "kvsieve/error.h"
#include "policy/number.h"

namespace kvsieve {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr uint64_t kMaxDataBytes = uint64_t{1} << 30U;

/// What is wrong with a line; read_data() adds where.
struct LineError {
    std::string why;
};

[[noreturn]] void refuse(const std::string & why) {
    throw LineError{why};
}

std::string read_whole(const fs::path & path) {
    const auto fail = [&](const std::string & why) { throw Error(ErrorCode::bad_input, path.string() + ": " + why); };
    std::error_code ec;
    if (!fs::exists(path, ec)) {
        fail("there is no such file");
    }
    if (fs::is_directory(path, ec)) {
        fail("it is a folder; expected a file of JSON lines");
    }
    if (const auto size = fs::file_size(path, ec); !ec && size > kMaxDataBytes) {
        fail("it has " + std::to_string(size) + " bytes; expected at most " + std::to_string(kMaxDataBytes));
    }
    std::ifstream in(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) {
        fail("it cannot be read");
    }
    return bytes;
}

const json * find(const json & object, const char * key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_of(const json & value, const std::string & what) {
    if (!value.is_string()) {
        refuse(what + " is " + value.type_name() + "; expected a string");
    }
    return value.get<std::string>();
}

std::vector<std::string> texts_of(const json & value, const std::string & what) {
    if (!value.is_array() || value.empty()) {
        refuse(what + " is " + (value.is_array() ? "empty" : value.type_name()) + "; expected a list of strings");
    }
    std::vector<std::string> out;
    for (const json & entry : value) {
        out.push_back(text_of(entry, "an entry of " + what));
    }
    return out;
}

std::vector<int32_t> tokens_of(const json & value, const std::string & what) {
    if (!value.is_array() || value.empty()) {
        refuse(what + " is " + (value.is_array() ? "empty" : value.type_name()) +
               "; expected a list of at least one token number");
    }
    std::vector<int32_t> out;
    for (const json & entry : value) {
        const bool fits = entry.is_number_integer() && entry >= 0 && entry <= std::numeric_limits<int32_t>::max();
        if (!fits) {
            refuse(what + " holds " + entry.dump() + "; expected token numbers of at least 0");
        }
        out.push_back(entry.get<int32_t>());
    }
    return out;
}

/// The value of exactly one of two keys, or nothing where neither is needed.
const json * one_of(const json & object, const char * one, const char * other, bool needed) {
    const json * const a = find(object, one);
    const json * const b = find(object, other);
    if (a != nullptr && b != nullptr) {
        refuse(std::string(one) + " and " + other + " are both given; expected one of them");
    }
    if (needed && a == nullptr && b == nullptr) {
        refuse(std::string(one) + " is missing (or " + other + ")");
    }
    return a != nullptr ? a : b;
}

Question question_of(const json & object, const DataOptions & options) {
    Question question;
    const json * const tokens = find(object, "prompt_tokens");
    if (one_of(object, "prompt", "prompt_tokens", true) == tokens) {
        question.prompt_tokens = tokens_of(*tokens, "prompt_tokens");
        if (const json * const answer = find(object, "answer_tokens")) {
            question.answer_tokens = tokens_of(*answer, "answer_tokens");
        } else if (!options.prompts_only) {
            refuse("answer_tokens is missing beside prompt_tokens");
        }
        return question;
    }
    question.prompt = text_of(object["prompt"], "prompt");
    if (find(object, "answer_tokens") != nullptr) {
        refuse("answer_tokens is given beside prompt; expected prompt_tokens with it");
    }
    const json * const answer = one_of(object, "answer", "answers", !options.prompts_only);
    if (answer != nullptr && answer == find(object, "answer")) {
        question.answers = {text_of(*answer, "answer")};
    } else if (answer != nullptr) {
        question.answers = texts_of(*answer, "answers");
    }
    for (const std::string & text : question.answers) {
        if (text.empty()) {
            refuse("an answer is empty; expected at least one token of it");
        }
    }
    return question;
}

Sample sample_of(const json & object, size_t line, const fs::path & folder, const DataOptions & options) {
    if (!object.is_object()) {
        refuse(std::string("it is ") + object.type_name() + "; expected a JSON object");
    }
    Sample sample;
    sample.line = line;
    const json * const id = find(object, "id");
    if (id == nullptr && !options.prompts_only) {
        refuse("id is missing");
    }
    sample.id = id == nullptr             ? "line " + std::to_string(line)
                : id->is_number_integer() ? id->dump()
                                          : text_of(*id, "id");
    sample.group = sample.id;

    std::vector<std::string> names;
    if (const json * const image = one_of(object, "image", "images", false)) {
        names = image->is_array() ? texts_of(*image, "images") : std::vector{text_of(*image, "image")};
        sample.group = names.front();
    }
    for (const std::string & name : names) {
        std::error_code ec;
        sample.images.push_back(folder / name);
        if (!fs::is_regular_file(sample.images.back(), ec)) {
            refuse("there is no image " + sample.images.back().string());
        }
    }
    if (const json * const group = find(object, "group")) {
        sample.group = text_of(*group, "group");
    }

    const json * const turns = find(object, "turns");
    if (turns == nullptr) {
        sample.turns.push_back(question_of(object, options));
        return sample;
    }
    if (!turns->is_array() || turns->empty()) {
        refuse("turns is no list of questions; expected objects with prompt and answer");
    }
    if (find(object, "prompt") != nullptr || find(object, "prompt_tokens") != nullptr) {
        refuse("prompt and turns are both given; expected one of them");
    }
    for (const json & turn : *turns) {
        if (!turn.is_object()) {
            refuse(std::string("an entry of turns is ") + turn.type_name() + "; expected an object");
        }
        sample.turns.push_back(question_of(turn, options));
    }
    return sample;
}

}  // namespace

DataSet read_data(const fs::path & path, const DataOptions & options) {
    const std::string bytes = read_whole(path);
    DataSet set{.path = path, .sha256 = sha256(bytes), .samples = {}, .bad = {}};
    std::set<std::string> ids;
    size_t number = 0;
    for (size_t at = 0; at < bytes.size();) {
        const size_t end = std::min(bytes.find('\n', at), bytes.size());
        std::string_view line(bytes.data() + at, end - at);
        at = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
            continue;
        }
        try {
            const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
            if (object.is_discarded()) {
                refuse("it is not JSON");
            }
            Sample sample = sample_of(object, number, path.parent_path(), options);
            if (!ids.insert(sample.id).second) {
                refuse("the id " + sample.id + " was there before");
            }
            set.samples.push_back(std::move(sample));
        } catch (const LineError & error) {
            const std::string why = path.string() + " line " + std::to_string(number) + ": " + error.why;
            if (!options.skip_bad) {
                throw Error(ErrorCode::bad_input, why);
            }
            set.bad.push_back({number, why});
        }
    }
    if (set.samples.empty()) {
        throw Error(ErrorCode::bad_input, path.string() + ": it has no usable line" +
                                              (set.bad.empty() ? "" : "; the first error is: " + set.bad[0].why));
    }
    return set;
}

Shard parse_shard(std::string_view text) {
    const size_t slash = text.find('/');
    const auto index = parse_unsigned(text.substr(0, slash));
    const auto count = slash == std::string_view::npos ? std::nullopt : parse_unsigned(text.substr(slash + 1));
    if (!index || !count || *index < 1 || *index > *count) {
        throw Error(ErrorCode::invalid_argument,
                    "a shard is given as I/N with I from 1 to N, not '" + std::string(text) + "'");
    }
    return {static_cast<size_t>(*index - 1), static_cast<size_t>(*count)};
}

std::vector<size_t> select_samples(size_t n, size_t limit, const Shard & shard) {
    const size_t n_taken = limit == 0 ? n : std::min(limit, n);
    std::vector<size_t> out;
    for (size_t i = shard.index; i < n_taken; i += shard.count) {
        out.push_back(i * n / n_taken);
    }
    return out;
}

}  // namespace kvsieve
