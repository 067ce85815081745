// SPDX-License-Identifier: MIT
// The options that choose a compression method, the same in every subcommand that runs one.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "kvsieve/policy.h"

/// A method's name and its checked options; `options` are what make_method() takes.
struct MethodChoice {
    std::string method;
    kvsieve::MethodOptions options;
};

/// Binds --method (or --scorer and --allocator with --scope), --granularity, --keep, --set, --profile and --seed to an
/// application; must live as long as it.
struct MethodArgs {
    std::string method = "full";
    std::string scorer, allocator, scope, granularity;  ///< empty: not given
    std::string keep, profile, seed;                    ///< as typed; empty: not given
    std::vector<std::string> set;                       ///< name=value

    void add_to(CLI::App & app, bool method_required = false);
    /// Throws kvsieve::Error for everything that the method does not take. Reads the profile.
    [[nodiscard]] MethodChoice resolve() const;

  private:
    /// The method's name, that of a composition where parts were given.
    [[nodiscard]] std::string chosen_method() const;

    CLI::Option * method_option_ = nullptr;
    bool method_required_ = false;
};
