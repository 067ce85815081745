// SPDX-License-Identifier: MIT
// A GGUF file, mapped read-only and checked completely before anything of upstream sees it: upstream aborts the
// process on much of what is refused here with Error{bad_input}.
#pragma once

#include <ggml.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// One tensor of the file. `data` points into the mapping and lives as long as the GgufFile.
struct GgufTensor {
    std::string name;
    ggml_type type = GGML_TYPE_F32;
    std::array<int64_t, 4> ne{1, 1, 1, 1};  ///< ne[0] is the contiguous dimension
    uint64_t offset = 0;                    ///< from the start of the file
    size_t nbytes = 0;
    const void * data = nullptr;
};

/// Owns the mapping. Immutable and thread-safe after construction; metadata are decoded on access.
class GgufFile {
  public:
    /// Throws Error{bad_input} naming the file and the first thing that is wrong.
    explicit GgufFile(const std::filesystem::path & path);
    ~GgufFile();
    GgufFile(GgufFile &&) noexcept;
    GgufFile & operator=(GgufFile &&) noexcept;
    GgufFile(const GgufFile &) = delete;
    GgufFile & operator=(const GgufFile &) = delete;

    [[nodiscard]] const std::filesystem::path & path() const { return path_; }
    [[nodiscard]] uint64_t file_bytes() const { return size_; }

    /// Metadata. Numbers are accepted in every width that holds the value; a missing key or another type throws
    /// Error{bad_input} naming key, expected type and what came. The forms with a fallback take it for a missing
    /// key only.
    [[nodiscard]] bool has(std::string_view key) const;
    [[nodiscard]] uint32_t get_u32(std::string_view key) const;
    [[nodiscard]] uint32_t get_u32(std::string_view key, uint32_t fallback) const;
    [[nodiscard]] float get_f32(std::string_view key) const;
    [[nodiscard]] float get_f32(std::string_view key, float fallback) const;
    [[nodiscard]] bool get_bool(std::string_view key) const;
    [[nodiscard]] bool get_bool(std::string_view key, bool fallback) const;
    [[nodiscard]] std::string get_str(std::string_view key) const;
    [[nodiscard]] std::string get_str(std::string_view key, std::string_view fallback) const;

    /// Arrays. The length of any array; its elements as integers, floats or texts.
    [[nodiscard]] size_t array_size(std::string_view key) const;
    [[nodiscard]] std::vector<int32_t> get_i32_array(std::string_view key) const;
    [[nodiscard]] std::vector<float> get_f32_array(std::string_view key) const;
    [[nodiscard]] std::vector<std::string> get_str_array(std::string_view key) const;
    /// A value that some models give once and others per layer: an integer (repeated) or an array of n integers.
    [[nodiscard]] std::vector<uint32_t> get_u32_per_layer(std::string_view key, size_t n) const;
    /// The type of a key as GGUF names it: "u32", "str", "arr[i32]", ...; empty for a missing key.
    [[nodiscard]] std::string type_of(std::string_view key) const;

    [[nodiscard]] std::span<const GgufTensor> tensors() const { return tensors_; }
    /// nullptr where there is no such tensor.
    [[nodiscard]] const GgufTensor * find(std::string_view name) const;
    /// Sum of all tensors' bytes.
    [[nodiscard]] uint64_t tensor_bytes() const;

    /// 16 hexadecimal digits over metadata, tensor infos and 64 bytes of every tensor; equal for equal files at
    /// any path. Milliseconds.
    [[nodiscard]] std::string fingerprint() const;

    /// Lets the kernel take the mapping's pages back; a later access reads them from the file again.
    void drop_pages() const;

  private:
    friend class GgufScanner;
    /// Where a key's value lies in the mapping.
    struct Value {
        uint32_t type = 0;  ///< gguf_type of the value or of an array's elements
        bool is_array = false;
        uint64_t n = 1;   ///< elements
        uint64_t at = 0;  ///< offset of the first element
    };
    [[nodiscard]] const Value & require(std::string_view key, std::string_view expected) const;
    [[nodiscard]] const Value & require_array(std::string_view key, std::string_view expected) const;
    [[nodiscard]] int64_t integer(std::string_view key, const Value & value, uint64_t i, int64_t min, int64_t max,
                                  std::string_view expected) const;
    [[nodiscard]] float real(std::string_view key, const Value & value, uint64_t i) const;
    [[nodiscard]] std::string fail(std::string_view key, std::string_view expected, std::string_view came) const;
    void unmap() noexcept;

    std::filesystem::path path_;
    const uint8_t * base_ = nullptr;
    uint64_t size_ = 0;
    uint64_t data_start_ = 0;
    std::map<std::string, Value, std::less<>> values_;
    std::vector<GgufTensor> tensors_;
    std::map<std::string, size_t, std::less<>> tensor_index_;
};

}  // namespace kvsieve
