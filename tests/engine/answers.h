// SPDX-License-Identifier: MIT
// Questions with images, and texts, that the parity tests run.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "kvsieve/engine.h"

namespace kvsieve::test {

struct Question {
    std::filesystem::path image;
    std::string prompt;
    std::string answer;
};

/// The embedded model pair of the source tree.
[[nodiscard]] inline ModelOptions embedded_pair(int32_t n_threads = 2) {
    const std::filesystem::path dir = KVSIEVE_MODELS_DIR;
    return {dir / "kvsieve-tiny-model-f16.gguf", dir / "kvsieve-tiny-mmproj-f16.gguf", n_threads};
}

/// One question per held-out image, and the long one of every fourth image (`only_long`: the long one of each): those
/// of the source tree, or of the folder named in KVSIEVE_HELDOUT.
[[nodiscard]] inline std::vector<Question> held_out_questions(bool only_long = false) {
    const char * other = std::getenv("KVSIEVE_HELDOUT");
    const std::filesystem::path dir =
        other != nullptr ? std::filesystem::path(other) : std::filesystem::path(KVSIEVE_TEST_DATA) / "heldout";
    std::ifstream file(dir / "heldout.jsonl");
    std::vector<Question> out;
    std::set<std::string> seen;
    for (std::string line; std::getline(file, line);) {
        const nlohmann::json row = nlohmann::json::parse(line);
        const std::string type = row.at("type");
        const std::string image = row.at("image");
        const bool first = !only_long && type == "question" && seen.insert(image).second;
        const bool long_one =
            type == "long" && (only_long || (seen.size() % 4 == 1 && seen.insert(image + " long").second));
        if (first || long_one) {
            out.push_back({dir / image, row.at("prompt"), row.at("answer")});
        }
    }
    return out;
}

/// Paragraphs of tests/data/passages.txt.
[[nodiscard]] inline std::vector<std::string> passages() {
    std::ifstream file(std::filesystem::path(KVSIEVE_TEST_DATA) / "passages.txt");
    std::vector<std::string> out;
    for (std::string line; std::getline(file, line);) {
        if (!line.empty()) {
            out.push_back(line);
        }
    }
    return out;
}

}  // namespace kvsieve::test
