// SPDX-License-Identifier: MIT
// GGUF files for tests: hostile ones byte by byte, and changed copies of good ones.
#pragma once

#include <ggml.h>
#include <gguf.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvsieve::test {

/// A folder that is removed with its files.
class TempDir {
  public:
    TempDir() {
        const std::filesystem::path memory = "/dev/shm";  // thousands of small files are slow on a disk
        const bool usable = access(memory.c_str(), W_OK) == 0;
        std::string name =
            ((usable ? memory : std::filesystem::temp_directory_path()) / "kvsieve-test-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("no temporary folder");
        }
        path_ = name;
    }
    ~TempDir() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }
    TempDir(const TempDir &) = delete;
    TempDir & operator=(const TempDir &) = delete;
    [[nodiscard]] std::filesystem::path operator/(const std::string & name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path & path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read_file(const std::filesystem::path & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Appends raw little-endian values: whatever is written is in the file, right or wrong.
class GgufBytes {
  public:
    template <typename T>
    GgufBytes & put(T value) {
        const void * data = &value;
        bytes_.append(static_cast<const char *>(data), sizeof(T));
        return *this;
    }
    GgufBytes & raw(std::string_view bytes) {
        bytes_ += bytes;
        return *this;
    }
    GgufBytes & text(std::string_view value) { return put<uint64_t>(value.size()).raw(value); }
    GgufBytes & header(uint64_t n_tensor, uint64_t n_key, uint32_t version = 3) {
        return raw("GGUF").put(version).put(n_tensor).put(n_key);
    }
    GgufBytes & key(std::string_view name, uint32_t type) { return text(name).put(type); }
    GgufBytes & tensor(std::string_view name, const std::vector<int64_t> & ne, uint32_t type, uint64_t offset) {
        text(name).put(static_cast<uint32_t>(ne.size()));
        for (const int64_t n : ne) {
            put(n);
        }
        return put(type).put(offset);
    }
    GgufBytes & pad(size_t alignment = 32) {
        bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
        return *this;
    }
    [[nodiscard]] const std::string & bytes() const { return bytes_; }

  private:
    std::string bytes_;
};

/// A good file with one key of every type and two tensors.
inline GgufBytes small_gguf() {
    GgufBytes file;
    file.header(2, 14);
    file.key("a.u8", GGUF_TYPE_UINT8).put<uint8_t>(200);
    file.key("a.i8", GGUF_TYPE_INT8).put<int8_t>(-3);
    file.key("a.u16", GGUF_TYPE_UINT16).put<uint16_t>(60000);
    file.key("a.i16", GGUF_TYPE_INT16).put<int16_t>(-300);
    file.key("a.u32", GGUF_TYPE_UINT32).put<uint32_t>(4000000000U);
    file.key("a.i32", GGUF_TYPE_INT32).put<int32_t>(-70000);
    file.key("a.u64", GGUF_TYPE_UINT64).put<uint64_t>(77);
    file.key("a.i64", GGUF_TYPE_INT64).put<int64_t>(88);
    file.key("a.f32", GGUF_TYPE_FLOAT32).put<float>(1.5F);
    file.key("a.f64", GGUF_TYPE_FLOAT64).put<double>(2.5);
    file.key("a.bool", GGUF_TYPE_BOOL).put<uint8_t>(1);
    file.key("a.str", GGUF_TYPE_STRING).text("hello");
    file.key("a.numbers", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_INT32).put<uint64_t>(3);
    file.put<int32_t>(1).put<int32_t>(-2).put<int32_t>(3);
    file.key("a.texts", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_STRING).put<uint64_t>(2).text("one").text("");
    file.tensor("first", {4, 2}, GGML_TYPE_F32, 0);
    file.tensor("second", {64}, GGML_TYPE_Q8_0, 32);
    file.pad();
    for (int i = 0; i < 8; ++i) {
        file.put<float>(static_cast<float>(i));
    }
    file.raw(std::string(68, 'q')).pad();
    return file;
}

/// A copy of a GGUF file with changes, written by ggml's own writer.
class GgufCopy {
  public:
    explicit GgufCopy(const std::filesystem::path & path) {
        ggml_context * tensors = nullptr;
        source_.reset(gguf_init_from_file(path.c_str(), {.no_alloc = false, .ctx = &tensors}));
        tensors_.reset(tensors);
        if (!source_) {
            throw std::runtime_error("cannot copy " + path.string());
        }
        meta_.reset(gguf_init_empty());
        gguf_set_kv(meta_.get(), source_.get());
    }
    /// Keys are changed through ggml's gguf_set_val_... and gguf_remove_key.
    [[nodiscard]] gguf_context * meta() { return meta_.get(); }
    [[nodiscard]] std::vector<std::string> tensor_names() const {
        std::vector<std::string> names;
        for (int64_t i = 0; i < gguf_get_n_tensors(source_.get()); ++i) {
            names.emplace_back(gguf_get_tensor_name(source_.get(), i));
        }
        return names;
    }
    GgufCopy & drop(const std::string & tensor) {
        dropped_[tensor] = true;
        return *this;
    }
    /// The tensor keeps its name; its data become zero.
    GgufCopy & replace(const std::string & tensor, ggml_type type, std::array<int64_t, 4> ne) {
        replaced_[tensor] = {type, ne};
        return *this;
    }
    /// A new tensor of zeros.
    GgufCopy & add(const std::string & tensor, ggml_type type, std::array<int64_t, 4> ne) {
        added_.push_back(tensor);
        return replace(tensor, type, ne);
    }
    void write(const std::filesystem::path & path) {
        const size_t n_tensor = static_cast<size_t>(gguf_get_n_tensors(source_.get())) + added_.size();
        const ContextPtr made(ggml_init({.mem_size = (n_tensor + 1) * ggml_tensor_overhead() + (64U << 20U),
                                         .mem_buffer = nullptr,
                                         .no_alloc = false}));
        std::vector<std::string> names = tensor_names();
        names.insert(names.end(), added_.begin(), added_.end());
        for (const std::string & name : names) {
            if (dropped_.contains(name)) {
                continue;
            }
            ggml_tensor * tensor = ggml_get_tensor(tensors_.get(), name.c_str());
            if (const auto found = replaced_.find(name); found != replaced_.end()) {
                tensor = ggml_new_tensor(made.get(), found->second.first, 4, found->second.second.data());
                ggml_set_name(tensor, name.c_str());
                ggml_set_zero(tensor);
            }
            gguf_add_tensor(meta_.get(), tensor);
        }
        if (!gguf_write_to_file(meta_.get(), path.c_str(), false)) {
            throw std::runtime_error("cannot write " + path.string());
        }
    }

  private:
    struct Deleter {
        void operator()(gguf_context * context) const { gguf_free(context); }
        void operator()(ggml_context * context) const { ggml_free(context); }
    };
    using ContextPtr = std::unique_ptr<ggml_context, Deleter>;
    std::unique_ptr<gguf_context, Deleter> source_, meta_;
    ContextPtr tensors_;
    std::map<std::string, bool> dropped_;
    std::vector<std::string> added_;
    std::map<std::string, std::pair<ggml_type, std::array<int64_t, 4>>> replaced_;
};

}  // namespace kvsieve::test
