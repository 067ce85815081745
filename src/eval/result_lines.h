// SPDX-License-Identifier: MIT
// The lines of a results file as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "eval/results.h"

namespace kvsieve {

/// Why a line is refused; the reader adds file and line.
struct LineError {
    std::string why;
};

inline constexpr const char * kHeaderKey = "kvsieve_results";  ///< its value is the version of the format
inline constexpr const char * kFactsKey = "observed";          ///< its value is the sample's id
inline constexpr const char * kCellKey = "sample";

[[nodiscard]] nlohmann::ordered_json to_json(const CellKey & key);
[[nodiscard]] nlohmann::ordered_json to_json(const ResultsHeader & header);
[[nodiscard]] nlohmann::ordered_json to_json(const CellResult & result);
[[nodiscard]] nlohmann::ordered_json to_json(const SampleFacts & facts);
/// The object on one line, with its end. Bytes that are no UTF-8 become U+FFFD.
[[nodiscard]] std::string line_of(const nlohmann::ordered_json & object);

/// These throw LineError.
[[nodiscard]] ResultsHeader header_from(const nlohmann::json & object);
[[nodiscard]] CellResult cell_from(const nlohmann::json & object);
[[nodiscard]] SampleFacts facts_from(const nlohmann::json & object);

}  // namespace kvsieve
