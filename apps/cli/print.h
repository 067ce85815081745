// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

/// Writes the text to standard output and flushes it. Throws kvsieve::Error{io} where that fails (a full disk).
void print_out(std::string_view text);
