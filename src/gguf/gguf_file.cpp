// SPDX-License-Identifier: MIT
#include "gguf/gguf_file.h"

#include <fcntl.h>
#include <gguf.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "gguf/gguf_scanner.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

[[noreturn]] void fail_open(const std::filesystem::path & path, const std::string & what) {
    throw Error(ErrorCode::bad_input, path.string() + " " + what);
}

// FNV-1a, 64 bit.
class Hash {
  public:
    void add(const uint8_t * data, size_t n) {
        for (size_t i = 0; i < n; ++i) {
            value_ = (value_ ^ data[i]) * 0x100000001b3ULL;
        }
    }
    [[nodiscard]] std::string hex() const {
        std::string text(16, '0');
        for (size_t i = 0; i < text.size(); ++i) {
            text[text.size() - 1 - i] = "0123456789abcdef"[(value_ >> (4 * i)) & 0xFU];
        }
        return text;
    }

  private:
    uint64_t value_ = 0xcbf29ce484222325ULL;
};

}  // namespace

GgufFile::GgufFile(const std::filesystem::path & path) : path_(path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fail_open(path, std::string("cannot be opened: ") + std::strerror(errno));
    }
    struct stat info {};
    const bool known = fstat(fd, &info) == 0;
    if (!known || !S_ISREG(info.st_mode) || info.st_size == 0) {
        close(fd);
        fail_open(path, known && S_ISREG(info.st_mode) ? "is empty, expected a GGUF file"
                                                       : "is not a regular file, expected a GGUF file");
    }
    size_ = static_cast<uint64_t>(info.st_size);
    void * base = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    close(fd);
    if (base == MAP_FAILED) {
        fail_open(path, std::string("cannot be mapped: ") + std::strerror(error));
    }
    base_ = static_cast<const uint8_t *>(base);
    try {
        GgufScanner(*this).scan();
    } catch (...) {
        unmap();
        throw;
    }
}

GgufFile::~GgufFile() {
    unmap();
}

GgufFile::GgufFile(GgufFile && other) noexcept
    : path_(std::move(other.path_)),
      base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      data_start_(other.data_start_),
      values_(std::move(other.values_)),
      tensors_(std::move(other.tensors_)),
      tensor_index_(std::move(other.tensor_index_)) {}

GgufFile & GgufFile::operator=(GgufFile && other) noexcept {
    std::swap(path_, other.path_);
    std::swap(base_, other.base_);
    std::swap(size_, other.size_);
    std::swap(data_start_, other.data_start_);
    std::swap(values_, other.values_);
    std::swap(tensors_, other.tensors_);
    std::swap(tensor_index_, other.tensor_index_);
    return *this;
}

void GgufFile::unmap() noexcept {
    if (base_ != nullptr) {
        munmap(const_cast<uint8_t *>(base_), size_);
        base_ = nullptr;
    }
}

bool GgufFile::has(std::string_view key) const {
    return values_.find(key) != values_.end();
}

std::string GgufFile::type_of(std::string_view key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) {
        return "";
    }
    const std::string name = gguf_element_name(found->second.type);
    return found->second.is_array ? "arr[" + name + "]" : name;
}

std::string GgufFile::fail(std::string_view key, std::string_view expected, std::string_view came) const {
    return path_.string() + ": key '" + printable(key) + "' " + std::string(came) + ", expected " +
           std::string(expected);
}

const GgufFile::Value & GgufFile::require(std::string_view key, std::string_view expected) const {
    const auto found = values_.find(key);
    if (found == values_.end()) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is missing"));
    }
    if (found->second.is_array) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is " + type_of(key)));
    }
    return found->second;
}

const GgufFile::Value & GgufFile::require_array(std::string_view key, std::string_view expected) const {
    const auto found = values_.find(key);
    if (found == values_.end()) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is missing"));
    }
    if (!found->second.is_array) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is " + type_of(key)));
    }
    return found->second;
}

int64_t GgufFile::integer(std::string_view key, const Value & value, uint64_t i, int64_t min, int64_t max,
                          std::string_view expected) const {
    const uint64_t at = value.at + i * gguf_element_bytes(value.type);
    int64_t number = 0;
    switch (value.type) {
        case GGUF_TYPE_UINT8:
            number = read_at<uint8_t>(base_, at);
            break;
        case GGUF_TYPE_INT8:
            number = read_at<int8_t>(base_, at);
            break;
        case GGUF_TYPE_UINT16:
            number = read_at<uint16_t>(base_, at);
            break;
        case GGUF_TYPE_INT16:
            number = read_at<int16_t>(base_, at);
            break;
        case GGUF_TYPE_UINT32:
            number = read_at<uint32_t>(base_, at);
            break;
        case GGUF_TYPE_INT32:
            number = read_at<int32_t>(base_, at);
            break;
        case GGUF_TYPE_INT64:
            number = read_at<int64_t>(base_, at);
            break;
        case GGUF_TYPE_UINT64: {
            const auto wide = read_at<uint64_t>(base_, at);
            if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
                throw Error(ErrorCode::bad_input, fail(key, expected, "is " + std::to_string(wide)));
            }
            number = static_cast<int64_t>(wide);
            break;
        }
        default:
            throw Error(ErrorCode::bad_input, fail(key, expected, "is " + type_of(key)));
    }
    if (number < min || number > max) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is " + std::to_string(number)));
    }
    return number;
}

float GgufFile::real(std::string_view key, const Value & value, uint64_t i) const {
    const uint64_t at = value.at + i * gguf_element_bytes(value.type);
    if (value.type == GGUF_TYPE_FLOAT32) {
        return read_at<float>(base_, at);
    }
    if (value.type == GGUF_TYPE_FLOAT64) {
        return static_cast<float>(read_at<double>(base_, at));
    }
    throw Error(ErrorCode::bad_input, fail(key, "a float", "is " + type_of(key)));
}

uint32_t GgufFile::get_u32(std::string_view key) const {
    constexpr std::string_view kExpected = "an unsigned 32-bit integer";
    return static_cast<uint32_t>(
        integer(key, require(key, kExpected), 0, 0, std::numeric_limits<uint32_t>::max(), kExpected));
}

uint32_t GgufFile::get_u32(std::string_view key, uint32_t fallback) const {
    return has(key) ? get_u32(key) : fallback;
}

float GgufFile::get_f32(std::string_view key) const {
    return real(key, require(key, "a float"), 0);
}

float GgufFile::get_f32(std::string_view key, float fallback) const {
    return has(key) ? get_f32(key) : fallback;
}

bool GgufFile::get_bool(std::string_view key) const {
    const Value & value = require(key, "a bool");
    if (value.type != GGUF_TYPE_BOOL) {
        throw Error(ErrorCode::bad_input, fail(key, "a bool", "is " + type_of(key)));
    }
    return read_at<uint8_t>(base_, value.at) != 0;
}

bool GgufFile::get_bool(std::string_view key, bool fallback) const {
    return has(key) ? get_bool(key) : fallback;
}

std::string GgufFile::get_str(std::string_view key) const {
    const Value & value = require(key, "a text");
    if (value.type != GGUF_TYPE_STRING) {
        throw Error(ErrorCode::bad_input, fail(key, "a text", "is " + type_of(key)));
    }
    const auto n = read_at<uint64_t>(base_, value.at);
    const void * text = base_ + value.at + sizeof(uint64_t);
    return {static_cast<const char *>(text), static_cast<size_t>(n)};
}

std::string GgufFile::get_str(std::string_view key, std::string_view fallback) const {
    return has(key) ? get_str(key) : std::string(fallback);
}

size_t GgufFile::array_size(std::string_view key) const {
    return static_cast<size_t>(require_array(key, "an array").n);
}

std::vector<int32_t> GgufFile::get_i32_array(std::string_view key) const {
    const Value & value = require_array(key, "an array of integers");
    std::vector<int32_t> out(static_cast<size_t>(value.n));
    for (size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<int32_t>(integer(key, value, i, std::numeric_limits<int32_t>::min(),
                                              std::numeric_limits<int32_t>::max(), "an array of 32-bit integers"));
    }
    return out;
}

std::vector<float> GgufFile::get_f32_array(std::string_view key) const {
    const Value & value = require_array(key, "an array of floats");
    std::vector<float> out(static_cast<size_t>(value.n));
    for (size_t i = 0; i < out.size(); ++i) {
        out[i] = real(key, value, i);
    }
    return out;
}

std::vector<std::string> GgufFile::get_str_array(std::string_view key) const {
    const Value & value = require_array(key, "an array of texts");
    if (value.type != GGUF_TYPE_STRING) {
        throw Error(ErrorCode::bad_input, fail(key, "an array of texts", "is " + type_of(key)));
    }
    std::vector<std::string> out(static_cast<size_t>(value.n));
    uint64_t at = value.at;
    for (std::string & text : out) {
        const auto n = read_at<uint64_t>(base_, at);
        const void * bytes = base_ + at + sizeof(uint64_t);
        text.assign(static_cast<const char *>(bytes), static_cast<size_t>(n));
        at += sizeof(uint64_t) + n;
    }
    return out;
}

std::vector<uint32_t> GgufFile::get_u32_per_layer(std::string_view key, size_t n) const {
    const std::string expected = "an unsigned integer or an array of " + std::to_string(n);
    const auto found = values_.find(key);
    if (found == values_.end()) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is missing"));
    }
    const Value & value = found->second;
    if (value.is_array && value.n != n) {
        throw Error(ErrorCode::bad_input, fail(key, expected, "is an array of " + std::to_string(value.n)));
    }
    std::vector<uint32_t> out(n);
    for (size_t i = 0; i < n; ++i) {
        out[i] = static_cast<uint32_t>(
            integer(key, value, value.is_array ? i : 0, 0, std::numeric_limits<uint32_t>::max(), expected));
    }
    return out;
}

const GgufTensor * GgufFile::find(std::string_view name) const {
    const auto found = tensor_index_.find(name);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

uint64_t GgufFile::tensor_bytes() const {
    uint64_t sum = 0;
    for (const GgufTensor & tensor : tensors_) {
        sum += tensor.nbytes;
    }
    return sum;
}

std::string GgufFile::fingerprint() const {
    // Metadata and tensor infos are everything before the data. Of each tensor the middle: its ends are more
    // often equal between related models.
    constexpr size_t kSample = 64;
    Hash hash;
    hash.add(base_, static_cast<size_t>(std::min(data_start_, size_)));
    for (const GgufTensor & tensor : tensors_) {
        const size_t n = std::min(kSample, tensor.nbytes);
        hash.add(base_ + tensor.offset + (tensor.nbytes - n) / 2, n);
    }
    return hash.hex();
}

void GgufFile::drop_pages() const {
    madvise(const_cast<uint8_t *>(base_), size_, MADV_DONTNEED);
}

}  // namespace kvsieve
