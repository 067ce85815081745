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

/// Index lists and counts exactly, floats within 1e-5 of the larger.
inline void expect_same(const nlohmann::json & expected, const nlohmann::json & actual, const std::string & what) {
    if (expected.is_array() && actual.is_array()) {
        ASSERT_EQ(expected.size(), actual.size()) << what;
        for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_NO_FATAL_FAILURE(expect_same(expected[i], actual[i], what + "[" + std::to_string(i) + "]"));
        }
    } else if (expected.is_number_float() && actual.is_number()) {
        const double a = expected.get<double>(), b = actual.get<double>();
        ASSERT_LE(std::abs(a - b), 1e-5 * std::max(std::abs(a), std::abs(b))) << what << ": " << a << " and " << b;
    } else {
        ASSERT_EQ(expected, actual) << what;
    }
}

/// Runs every golden entry of one method through plan_to_json() and compares all that is expected, but for the
/// names in `informative`. `options_of` turns an entry's params into options. Returns the number of entries.
template <typename OptionsOf>
int check_golden_entries(const std::string & golden_method, const std::string & method,
                         const std::vector<std::string> & informative, OptionsOf options_of) {
    int n_entries = 0;
    for (const std::string & name : golden_names()) {
        const nlohmann::json golden = read_golden(name);
        for (const auto & entry : golden.at("entries")) {
            if (entry.at("method") != golden_method) {
                continue;
            }
            ++n_entries;
            const std::string what = name + " " + method + " " + entry["params"].dump();
            const MethodOptions options = options_of(entry["params"]);
            const auto bound = make_method(method, options);
            const ObservationFile file(golden_dir() / (name + ".npz"), method, bound->traits());
            const Plan plan = plan_from_file(*bound, file);
            std::optional<SimulatedDecode> decode;
            if (const int32_t steps = entry["params"].value("decode_steps", 0); steps > 0) {
                decode = SimulatedDecode{steps, simulate_decode(plan, file.prompt().n_tokens, steps)};
            }
            const nlohmann::json actual = plan_to_json(method, options, file.prompt(), plan, decode);
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
