// SPDX-License-Identifier: MIT
// Command line options with checked numbers, and one sentence for each way to get the command line wrong.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

/// Help with aligned columns.
[[nodiscard]] std::shared_ptr<CLI::FormatterBase> help_formatter();

/// "run, methods, plan"
[[nodiscard]] std::string command_names(const CLI::App & app);

/// What was wrong with the command line, with the nearest known name and the help to look at.
[[nodiscard]] std::string usage_sentence(const CLI::App & app, const CLI::ParseError & error);

/// Options that take a number in [min, max]; anything else is Error{invalid_argument}. `target` holds the default.
CLI::Option * add_integer(CLI::App & app, const std::string & names, int32_t & target, int64_t min, int64_t max,
                          const std::string & help);
CLI::Option * add_number(CLI::App & app, const std::string & names, float & target, double min, double max,
                         const std::string & help);
/// A word out of a list.
CLI::Option * add_choice(CLI::App & app, const std::string & names, std::string & target,
                         std::vector<std::string> choices, const std::string & help);
