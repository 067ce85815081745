// SPDX-License-Identifier: MIT
// Linux: mremap moves page tables, not bytes, and munmap of a tail gives it back at once.
#include "cache/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "kvsieve/error.h"

namespace kvsieve {

Arena::Arena(Arena && other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Arena & Arena::operator=(Arena && other) noexcept {
    if (this != &other) {
        shrink(0);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

Arena::~Arena() {
    shrink(0);
}

size_t Arena::page_round(size_t bytes) noexcept {
    static const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (bytes > std::numeric_limits<size_t>::max() - kPage) {
        return std::numeric_limits<size_t>::max() / kPage * kPage;
    }
    return (bytes + kPage - 1) / kPage * kPage;
}

void Arena::grow(size_t bytes, std::string_view what) {
    const size_t wanted = page_round(bytes);
    if (wanted <= size_) {
        return;
    }
    void * moved = data_ == nullptr ? mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                                    : mremap(data_, size_, wanted, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) {
        throw Error(ErrorCode::runtime, "out of memory: " + std::string(what) + " asked for " + std::to_string(wanted) +
                                            " bytes: " + std::strerror(errno));
    }
    data_ = static_cast<uint8_t *>(moved);
    size_ = wanted;
}

void Arena::shrink(size_t bytes) noexcept {
    const size_t wanted = page_round(bytes);
    if (wanted >= size_) {
        return;
    }
    // A refused munmap leaves the tail mapped: it stays ours and is counted.
    if (munmap(data_ + wanted, size_ - wanted) == 0) {
        size_ = wanted;
        data_ = wanted == 0 ? nullptr : data_;
    }
}

}  // namespace kvsieve
