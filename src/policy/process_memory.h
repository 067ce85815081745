// SPDX-License-Identifier: MIT
// This process's memory. For programs: the library leaves the allocator as it is.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>  // __GLIBC__
#include <fstream>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace kvsieve {

/// Resident bytes.
inline uint64_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    uint64_t total = 0, pages = 0;
    statm >> total >> pages;
    return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

/// From now on freed buffers of a prompt go back to the system; glibc would keep them below its heap's top.
inline void give_back_large_buffers() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

}  // namespace kvsieve
