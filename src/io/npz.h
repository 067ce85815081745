// SPDX-License-Identifier: MIT
// numpy's .npz: a zip of .npy arrays, C order, little endian, stored or deflated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/npy.h"

namespace kvsieve {

/// Most bytes of one array that are read; a declared size above it is refused before anything is allocated.
inline constexpr uint64_t kMaxArrayBytes = uint64_t{8} << 30U;

/// An .npz that is open for reading. Arrays are decompressed when asked for. Not thread-safe.
/// Every member throws Error{bad_input} naming the file and the array for what is missing, damaged or of another
/// type. Memory is bounded by the array's declared size, which must fit its entry and what deflate can reach.
class NpzFile {
  public:
    explicit NpzFile(const std::filesystem::path & path);
    ~NpzFile();
    NpzFile(NpzFile &&) noexcept;
    NpzFile & operator=(NpzFile &&) noexcept;

    [[nodiscard]] const std::string & path() const { return path_; }
    [[nodiscard]] bool has(const std::string & name) const { return headers_.contains(name); }
    [[nodiscard]] const std::map<std::string, NpyHeader> & arrays() const { return headers_; }
    [[nodiscard]] const NpyHeader & header(const std::string & name) const;

    /// A float array as float32: float16 is exact, float64 is rounded; other types are refused, as are NaN and
    /// infinity.
    [[nodiscard]] std::vector<float> read_floats(const std::string & name) const;
    /// uint8 or bool.
    [[nodiscard]] std::vector<uint8_t> read_bytes(const std::string & name) const;
    /// int32 or int64.
    [[nodiscard]] std::vector<int64_t> read_integers(const std::string & name) const;

  private:
    struct Archive;
    [[nodiscard]] std::vector<uint8_t> read_raw(const std::string & name) const;
    [[noreturn]] void fail(const std::string & name, const std::string & why) const;

    std::string path_;
    std::unique_ptr<Archive> archive_;
    std::map<std::string, NpyHeader> headers_;  // without ".npy"
};

/// An array to write: bytes in C order, alive until write_npz() returns.
struct NpzArray {
    std::string name;
    NpyType type = NpyType::f4;
    std::vector<uint64_t> shape;
    std::span<const std::byte> data;
};

/// Writes the file whole or not at all; the bytes depend on the arrays only. Throws Error{io}.
void write_npz(const std::filesystem::path & path, std::span<const NpzArray> arrays);

/// An .npz whose arrays are filled piece by piece, in any order and larger than memory: they wait as files in a folder
/// beside the final one, which finish() packs and removes. Not thread-safe.
class NpzSpool {
  public:
    /// Throws Error{io} for a path that cannot be written.
    explicit NpzSpool(std::filesystem::path path);
    ~NpzSpool();
    NpzSpool(const NpzSpool &) = delete;
    NpzSpool & operator=(const NpzSpool &) = delete;

    /// Declares an array; its elements are 0 until they are written.
    void add(const std::string & name, NpyType type, const std::vector<uint64_t> & shape);
    /// Writes elements from index `first` on. Throws Error{invalid_argument} beyond the array's end.
    void write(const std::string & name, uint64_t first, std::span<const std::byte> data);
    /// Packs the arrays in the order of add(): the file appears whole or not at all.
    void finish();

  private:
    struct Array;
    std::filesystem::path path_, folder_;
    std::vector<std::unique_ptr<Array>> arrays_;
};

}  // namespace kvsieve
