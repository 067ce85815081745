// SPDX-License-Identifier: MIT
// Files that appear whole or not at all.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace kvsieve {

/// Writes a file beside its final place, syncs it and renames it over `path`; a reader sees the old file or the
/// new one. `write` gets the temporary file's path; what it throws is passed on after the temporary file is
/// removed. Throws Error{io} for a path that cannot be written.
void atomic_write_file(const std::filesystem::path & path,
                       const std::function<void(const std::filesystem::path & temporary)> & write);
void atomic_write_file(const std::filesystem::path & path, std::string_view bytes);

}  // namespace kvsieve
