// SPDX-License-Identifier: MIT
// A block of memory straight from the kernel, whose tail can be given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvsieve {

/// One private anonymous mapping of whole pages, or none. Movable, not copyable, not thread-safe.
class Arena {
  public:
    Arena() = default;
    Arena(Arena && other) noexcept;
    Arena & operator=(Arena && other) noexcept;
    Arena(const Arena &) = delete;
    Arena & operator=(const Arena &) = delete;
    ~Arena();

    /// At least `bytes`, rounded up to pages. Contents stay; the address may change. Throws Error{runtime} with the
    /// size asked and `what` (for whom); the mapping is then as before.
    void grow(size_t bytes, std::string_view what);
    /// Gives whole pages behind `bytes` back; 0 gives everything back. The address stays.
    void shrink(size_t bytes) noexcept;

    [[nodiscard]] uint8_t * data() noexcept { return data_; }
    [[nodiscard]] const uint8_t * data() const noexcept { return data_; }
    [[nodiscard]] size_t size() const noexcept { return size_; }  ///< bytes mapped, whole pages

    /// Rounds up to whole pages of this machine.
    [[nodiscard]] static size_t page_round(size_t bytes) noexcept;

  private:
    uint8_t * data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace kvsieve
