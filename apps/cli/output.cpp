// SPDX-License-Identifier: MIT
#include "output.h"

#include "io/atomic_file.h"

void check_writable(const std::filesystem::path & path) {
    struct Probe {};
    try {
        kvsieve::atomic_write_file(path, [](const std::filesystem::path &) { throw Probe(); });
    } catch (const Probe &) {  // the temporary file could be made; it is removed again
    }
}
