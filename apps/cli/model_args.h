// SPDX-License-Identifier: MIT
// The options that name a model and how it is used, the same in every subcommand that loads one.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "kvsieve/engine.h"

/// Binds -m, --mmproj, --probes, --chat-template, -c and -t to an application; must live as long as it.
struct ModelArgs {
    std::string model, mmproj, probes, chat_template;
    int32_t n_ctx = 0;
    int32_t n_threads = 0;
    bool no_repack = false;

    void add_to(CLI::App & app);
    /// Refuses what does not belong together, before a file is opened.
    void check(bool has_images) const;
    /// As asked for, or one per core.
    [[nodiscard]] int32_t threads() const;
    /// The files: those named, or the embedded pair.
    [[nodiscard]] kvsieve::ModelOptions files() const;
};
