// SPDX-License-Identifier: MIT
// Perplexity of the rest of a text behind a compressed prompt: the prompt is prefilled and compressed, then the tokens
// behind it are fed one by one without any eviction while decoding. One JSON line with the tokens, then one per method
// and keep. tools/compare_kvpress.py makes the same of KVPress.
//   kvsieve_text_perplexity MODEL.gguf TEXT PROMPT_TOKENS REST_TOKENS METHOD,... KEEP,...
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "eval/metrics.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"
#include "policy/number.h"
#include "program.h"

namespace {

using kvsieve::Error;
using kvsieve::ErrorCode;

template <typename T>
T number(const std::string & text) {
    T value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value <= 0) {
        throw Error(ErrorCode::invalid_argument, "expected a number above 0, got " + text);
    }
    return value;
}

std::vector<int32_t> tokens_of(const kvsieve::Model & model, const std::string & path, size_t n) {
    std::ifstream file(path);
    if (!file) {
        throw Error(ErrorCode::bad_input, path + " cannot be read, expected a text");
    }
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    std::vector<int32_t> tokens = model.tokenize(text, true, false);
    if (tokens.size() < n) {
        throw Error(ErrorCode::invalid_argument,
                    path + " has " + std::to_string(tokens.size()) + " tokens, expected at least " + std::to_string(n));
    }
    tokens.resize(n);
    return tokens;
}

void measure(const std::shared_ptr<const kvsieve::Model> & model, std::span<const int32_t> tokens, size_t n_prompt,
             const std::string & method, double keep) {
    kvsieve::SessionOptions options;
    options.method = method;
    options.method_options.keep = keep;
    options.decode_policy = "none";
    kvsieve::Session session(model, options);
    std::span<const float> logits = session.feed(tokens.first(n_prompt));
    const uint64_t rows = session.usage().rows;
    double sum = 0;
    for (size_t i = n_prompt; i < tokens.size(); ++i) {
        sum += kvsieve::token_nll(logits, tokens[i]);
        if (i + 1 < tokens.size()) {
            logits = session.feed(tokens.subspan(i, 1));
        }
    }
    const nlohmann::ordered_json line = {{"method", method},
                                         {"keep", keep},
                                         {"rows", rows},
                                         {"perplexity", std::exp(sum / static_cast<double>(tokens.size() - n_prompt))}};
    std::cout << line.dump() << std::endl;
}

int run(const std::vector<std::string> & args) {
    if (args.size() != 6) {
        throw Error(ErrorCode::invalid_argument,
                    "expected MODEL.gguf TEXT PROMPT_TOKENS REST_TOKENS METHOD,... KEEP,...");
    }
    kvsieve::ModelOptions files;
    files.model = args[0];
    const auto model = kvsieve::Model::load(files);
    const auto n_prompt = number<size_t>(args[2]), n_rest = number<size_t>(args[3]);
    const std::vector<int32_t> tokens = tokens_of(*model, args[1], n_prompt + n_rest);
    std::cout << nlohmann::json{{"prompt_tokens", n_prompt}, {"tokens", tokens}}.dump() << std::endl;
    for (const std::string & method : kvsieve::split(args[4], ',')) {
        if (kvsieve::method_info(method).keep_of.empty()) {
            measure(model, tokens, n_prompt, method, 1.0);
            continue;
        }
        for (const std::string & keep : kvsieve::split(args[5], ',')) {
            measure(model, tokens, n_prompt, method, number<double>(keep));
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char ** argv) {
    return kvsieve::run_program("kvsieve_text_perplexity", argc, argv, run);
}
