// SPDX-License-Identifier: MIT
// What is said about a turn: statistics for people, a JSON object for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "kvsieve/engine.h"
#include "method_options.h"
#include "terminal.h"

/// What stays the same over the turns of a run.
struct RunSetup {
    kvsieve::ModelOptions files;
    kvsieve::ModelInfo model;
    MethodChoice method;
    bool kv_rot = true;
    bool capped = false;  ///< the keep was found for a cap on the rows
};

/// "prefixkv, keep 0.2" or "prefixkv, profile"
[[nodiscard]] std::string method_title(const MethodChoice & choice);

/// Tokens, memory and times of the last turn, in a few aligned lines.
[[nodiscard]] std::string statistics(const TerminalStyle & style, const RunSetup & setup,
                                     const kvsieve::Session & session, const kvsieve::Answer & answer);

/// One line for a turn of a conversation.
[[nodiscard]] std::string short_statistics(const kvsieve::Session & session, const kvsieve::Answer & answer);

/// Rows that each layer keeps of the first prompt, as bars. Empty where nothing was dropped.
[[nodiscard]] std::string budget_chart(const TerminalStyle & style, const RunSetup & setup, const kvsieve::Plan & plan,
                                       const kvsieve::PromptShape & prompt);

/// All of it; docs/cli.md has the fields. `turn` counts from 1.
[[nodiscard]] nlohmann::ordered_json turn_json(const RunSetup & setup, const kvsieve::Session & session,
                                               const kvsieve::Answer & answer, int turn);
