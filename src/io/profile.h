// SPDX-License-Identifier: MIT
// Offline budgets as files.
#pragma once

#include <filesystem>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Reads a profile: a JSON list of the layers' forgotten fractions, as PrefixKV's authors publish it, or kvsieve's
/// own object {"kvsieve_profile": 1, "method", "model_fingerprint", "forget": [...]}.
/// Throws Error{bad_input} naming the file and what does not fit.
[[nodiscard]] Profile read_profile(const std::filesystem::path & path);

/// Writes the object form, whole or not at all.
void write_profile(const std::filesystem::path & path, const Profile & profile);

}  // namespace kvsieve
