// SPDX-License-Identifier: MIT
// Small random models for tests, with what the program's own make-model does not write: fused projections, LongRoPE
// factors, any metadata.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gguf/model_writer.h"

struct gguf_context;

namespace kvsieve::test {

/// A file that is removed at the end of the test.
class TempFile {
  public:
    explicit TempFile(const std::string & suffix);
    ~TempFile();
    TempFile(const TempFile &) = delete;
    TempFile & operator=(const TempFile &) = delete;
    [[nodiscard]] const std::filesystem::path & path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// A GGUF file in memory, to be changed and written back.
class GgufEdit {
  public:
    explicit GgufEdit(const std::filesystem::path & path);
    ~GgufEdit();
    GgufEdit(const GgufEdit &) = delete;
    GgufEdit & operator=(const GgufEdit &) = delete;

    void set(const std::string & key, const std::string & value);
    void set(const std::string & key, float value);
    void set(const std::string & key, uint32_t value);
    void remove_key(const std::string & key);
    /// f32 vector of this name.
    void add_vector(const std::string & name, const std::vector<float> & values);
    /// Replaces the named matrices (one type, one width) by one that has all their rows.
    void fuse(const std::vector<std::string> & names, const std::string & fused);
    /// The values of a tensor as floats.
    [[nodiscard]] std::vector<float> values(const std::string & name) const;
    void write(const std::filesystem::path & path) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// 4 query heads over 2 KV heads of 64 (rotated where rows are quantised), f32.
[[nodiscard]] ModelShape narrow_shape(int32_t n_layer, int32_t n_ctx);

/// `n` tokens of the vocabulary's ordinary part, the same for the same seed.
[[nodiscard]] std::vector<int32_t> some_tokens(size_t n, uint32_t seed, int32_t n_vocab);

/// Writes a random model, changed by `edit` where it is given.
void write_model(const ModelShape & shape, const std::filesystem::path & path,
                 const std::function<void(GgufEdit &)> & edit = {});

}  // namespace kvsieve::test
