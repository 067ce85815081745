// SPDX-License-Identifier: MIT
// Weights of a decoder as ggml tensors over a memory-mapped GGUF file.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>

#include "gguf/gguf_file.h"
#include "graph/packed_weights.h"

namespace kvsieve {

/// Hands out tensors by name and verifies their shapes. No weight is copied: the tensors point into the file's
/// mapping, or to packed copies of matrices, so these must outlive them. The tensors are read only; several threads may
/// use them.
class Weights {
  public:
    explicit Weights(const GgufFile & file, const PackedWeights * packed = nullptr);
    ~Weights();
    Weights(const Weights &) = delete;
    Weights & operator=(const Weights &) = delete;

    /// The tensor `name` of shape `ne`. Throws Error{bad_input} when it is missing or has another shape.
    ggml_tensor * require(const std::string & name, std::initializer_list<int64_t> ne);
    /// nullptr when it is missing; throws for another shape.
    ggml_tensor * optional(const std::string & name, std::initializer_list<int64_t> ne);
    /// The same for a matrix that serves as the left operand of matrix multiplications and nothing else: its bytes may
    /// lie in another order than in the file.
    ggml_tensor * require_matrix(const std::string & name, int64_t n_in, int64_t n_out);
    ggml_tensor * optional_matrix(const std::string & name, int64_t n_in, int64_t n_out);
    /// Throws Error{bad_input} that names a tensor which nobody asked for: the file wants something that the
    /// architecture does not compute.
    void check_all_used(std::string_view arch) const;

    [[nodiscard]] uint64_t bytes() const { return bytes_; }
    /// What was asked for as a matrix.
    [[nodiscard]] std::set<std::string> matrices() const;

  private:
    const GgufTensor * find(const std::string & name, std::initializer_list<int64_t> ne);
    ggml_tensor * describe(const GgufTensor & found);
    [[noreturn]] void miss(const std::string & name) const;

    const GgufFile & file_;
    const PackedWeights * packed_;
    ggml_context * ctx_ = nullptr;
    std::set<std::string> used_;
    std::map<std::string, ggml_tensor *> in_file_, matrices_;
    uint64_t bytes_ = 0;
};

}  // namespace kvsieve
