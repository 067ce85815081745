// SPDX-License-Identifier: MIT
// Golden cases: tests/data/golden/NAME.npz (inputs) and NAME.json.gz (expected results).
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/npz.h"
#include "io/observation_file.h"
#include "io/plan_json.h"
#include "kvsieve/policy.h"

namespace kvsieve::test {

inline std::filesystem::path golden_dir() {
    return std::filesystem::path(KVSIEVE_TEST_DATA) / "golden";
}

inline nlohmann::json read_golden(const std::string & name) {
    const auto path = golden_dir() / (name + ".json.gz");
    const gzFile file = gzopen(path.c_str(), "rb");
    if (file == nullptr) {
        throw std::runtime_error("no " + path.string());
    }
    std::string text, buffer(1U << 16U, '\0');
    for (int n = 0; (n = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;) {
        text.append(buffer.data(), static_cast<size_t>(n));
    }
    gzclose(file);
    return nlohmann::json::parse(text);
}

/// Names of all golden cases, sorted.
inline std::vector<std::string> golden_names() {
    std::vector<std::string> out;
    for (const auto & entry : std::filesystem::directory_iterator(golden_dir())) {
        if (entry.path().extension() == ".npz") {
            out.push_back(entry.path().stem().string());
        }
    }
    std::sort(out.begin(), out.end());
    return out;
}

/// Index lists and counts exactly, floats within 1e-5 of the larger. One count where there is one per layer: it is that
/// of all layers.
inline void expect_same(const nlohmann::json & expected, const nlohmann::json & actual, const std::string & what) {
    if (expected.is_array() && actual.is_array()) {
        ASSERT_EQ(expected.size(), actual.size()) << what;
        for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_NO_FATAL_FAILURE(expect_same(expected[i], actual[i], what + "[" + std::to_string(i) + "]"));
        }
    } else if (expected.is_number_integer() && actual.is_array()) {
        for (const auto & one : actual) {
            ASSERT_EQ(expected, one) << what;
        }
    } else if (expected.is_number_float() && actual.is_number()) {
        const double a = expected.get<double>(), b = actual.get<double>();
        ASSERT_LE(std::abs(a - b), 1e-5 * std::max(std::abs(a), std::abs(b))) << what << ": " << a << " and " << b;
    } else {
        ASSERT_EQ(expected, actual) << what;
    }
}

/// An entry's params as options: keep, or a profile from `layer_ratios`; all others are parameters of the method.
inline MethodOptions golden_options(const nlohmann::json & params) {
    MethodOptions options;
    for (const auto & [name, value] : params.items()) {
        if (name == "keep") {
            options.keep = value;
        } else if (name == "layer_ratios") {
            options.profile = Profile{.forget = value};
        } else if (name != "decode_steps") {
            options.params[name] = value.is_string() ? value.get<std::string>() : value.dump();
        }
    }
    return options;
}

/// Two files of made-up rows look ahead of their queries, which ObservationFile refuses in files from outside. Their
/// other arrays are read as ever; the rows come from here as they are.
class RowsAsTheyAre final : public LayerObservation {
  public:
    RowsAsTheyAre(const LayerObservation & other, const PromptShape & prompt, std::span<const float> rows)
        : LayerObservation(other), prompt_(prompt), rows_(rows) {
        n_row_ = rows.size() / (static_cast<size_t>(prompt.n_head) * static_cast<size_t>(prompt.n_tokens));
        for (size_t i = n_row_; i > 0; --i) {
            positions_.push_back(prompt.n_tokens - static_cast<int32_t>(i));
        }
        row_positions = positions_;
    }
    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        const auto n = static_cast<size_t>(prompt_.n_tokens);
        out.clear();
        for (size_t h = 0; h < static_cast<size_t>(prompt_.n_head); ++h) {
            for (const int32_t q : positions) {
                const auto row = rows_.subspan((h * n_row_ + static_cast<size_t>(q - positions_[0])) * n, n);
                out.insert(out.end(), row.begin(), row.end());
            }
        }
    }

  private:
    PromptShape prompt_;
    std::span<const float> rows_;  // [H, Q, T]
    size_t n_row_ = 0;
    std::vector<int32_t> positions_;
};

inline Plan plan_of_golden(const std::string & name, const std::string & method, const Method & bound,
                           PromptShape & prompt) {
    const auto path = golden_dir() / (name + ".npz");
    Traits wanted = bound.traits();
    const bool ahead = (name == "more_edge_constant" || name == "more_edge_ties") && wanted.rows != RowsWanted::none;
    wanted.rows = ahead ? RowsWanted::none : wanted.rows;
    const ObservationFile file(path, method, wanted);
    prompt = file.prompt();
    if (!ahead) {
        return plan_from_file(bound, file);
    }
    const std::vector<float> rows = NpzFile(path).read_floats("rows");
    const size_t n_layer = rows.size() / static_cast<size_t>(prompt.n_layer);
    std::vector<LayerScore> scores;
    for (int32_t il = 0; il < prompt.n_layer; ++il) {
        const auto part = std::span(rows).subspan(static_cast<size_t>(il) * n_layer, n_layer);
        scores.push_back(bound.score(prompt, il, RowsAsTheyAre(file.layer(il), prompt, part)));
    }
    return bound.plan(prompt, scores);
}

/// Runs every golden entry of one method through plan_to_json() and compares all that is expected, but for the
/// names in `informative`. Returns the number of entries.
inline int check_golden_entries(const std::string & golden_method, const std::string & method,
                                const std::vector<std::string> & informative = {}) {
    int n_entries = 0;
    for (const std::string & name : golden_names()) {
        const nlohmann::json golden = read_golden(name);
        for (const auto & entry : golden.at("entries")) {
            if (entry.at("method") != golden_method) {
                continue;
            }
            ++n_entries;
            const std::string what = name + " " + method + " " + entry["params"].dump();
            const MethodOptions options = golden_options(entry["params"]);
            const auto bound = make_method(method, options);
            PromptShape prompt;
            const Plan plan = plan_of_golden(name, method, *bound, prompt);
            std::optional<SimulatedDecode> decode;
            if (const int32_t steps = entry["params"].value("decode_steps", 0); steps > 0) {
                decode = SimulatedDecode{steps, simulate_decode(plan, prompt.n_tokens, steps)};
            }
            const nlohmann::json actual = plan_to_json(method, options, prompt, plan, decode);
            for (const auto & [key, value] : entry["expected"].items()) {
                if (std::find(informative.begin(), informative.end(), key) != informative.end()) {
                    continue;
                }
                EXPECT_TRUE(actual.contains(key)) << what << ": no " << key;
                if (key == "decode") {
                    for (const auto & [part, list] : value.items()) {
                        expect_same(list, actual[key].at(part), what + " decode." + part);
                    }
                } else if (actual.contains(key)) {
                    expect_same(value, actual[key], what + " " + key);
                }
            }
        }
    }
    return n_entries;
}

}  // namespace kvsieve::test
