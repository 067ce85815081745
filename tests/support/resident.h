// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <cstdint>
#include <fstream>

namespace kvsieve::test {

/// Resident memory of this process in bytes.
inline uint64_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    uint64_t total = 0, pages = 0;
    statm >> total >> pages;
    return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace kvsieve::test
