// SPDX-License-Identifier: MIT
#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "gguf/gguf_file.h"

namespace kvsieve {

/// Bytes of one element, 0 for texts and arrays and for what is not a GGUF type.
[[nodiscard]] size_t gguf_element_bytes(uint32_t type);
/// "u32", "str", ..., or "type 77".
[[nodiscard]] std::string gguf_element_name(uint32_t type);
/// Text from a file for an error sentence: at most 80 bytes, control characters and wrong bytes as '?'.
[[nodiscard]] std::string printable(std::string_view text);

/// Reads a value at any alignment.
template <typename T>
[[nodiscard]] T read_at(const uint8_t * base, uint64_t at) {
    T value;
    std::memcpy(&value, base + at, sizeof(T));
    return value;
}

/// One pass over the file from the magic to the last tensor info; fills a GgufFile or throws.
class GgufScanner {
  public:
    explicit GgufScanner(GgufFile & file) : file_(file) {}
    void scan();

  private:
    [[noreturn]] void fail(const std::string & what) const;
    void need(uint64_t n, const std::string & what) const;
    template <typename T>
    T read(const std::string & what);
    std::string_view read_text(const std::string & what);
    void read_header();
    void read_value(uint64_t index);
    void read_array(const std::string & key, GgufFile::Value & value);
    void read_tensor(uint64_t index);
    void place_tensors(uint64_t alignment);

    GgufFile & file_;
    uint64_t at_ = 0;
    uint64_t n_value_ = 0;
    uint64_t n_tensor_ = 0;
};

}  // namespace kvsieve
