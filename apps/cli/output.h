// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

/// Throws Error{io} now if atomic_write_file() could not write there later. Leaves nothing behind.
void check_writable(const std::filesystem::path & path);
