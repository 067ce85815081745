// SPDX-License-Identifier: MIT
// Weights of a decoder as ggml tensors over a memory-mapped GGUF file.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>

#include "gguf/gguf_file.h"

namespace kvsieve {

/// Hands out tensors by name and verifies their shapes. No weight is copied: the tensors point into the file's
/// mapping, so the file must outlive them. The tensors are read only; several threads may use them.
class Weights {
  public:
    explicit Weights(const GgufFile & file);
    ~Weights();
    Weights(const Weights &) = delete;
    Weights & operator=(const Weights &) = delete;

    /// The tensor `name` of shape `ne`. Throws Error{bad_input} when it is missing or has another shape.
    ggml_tensor * require(const std::string & name, std::initializer_list<int64_t> ne);
    /// nullptr when it is missing; throws for another shape.
    ggml_tensor * optional(const std::string & name, std::initializer_list<int64_t> ne);
    /// Throws Error{bad_input} that names a tensor which nobody asked for: the file wants something that the
    /// architecture does not compute.
    void check_all_used(std::string_view arch) const;

    [[nodiscard]] uint64_t bytes() const { return bytes_; }

  private:
    const GgufFile & file_;
    ggml_context * ctx_ = nullptr;
    std::set<std::string> used_;
    uint64_t bytes_ = 0;
};

}  // namespace kvsieve
