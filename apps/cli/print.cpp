// SPDX-License-Identifier: MIT
#include "print.h"

#include <cstdio>

#include "kvsieve/error.h"

void print_out(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
        throw kvsieve::Error(kvsieve::ErrorCode::io, "cannot write to standard output");
    }
}
