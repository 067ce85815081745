// SPDX-License-Identifier: MIT
// Weight matrices in the layout that the processor's matrix multiplication is fastest with.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "gguf/gguf_file.h"

namespace kvsieve {

/// The layout in which ggml multiplies a matrix of this type and shape fastest on this processor; nullptr: as in the
/// file. Lives as long as the program.
[[nodiscard]] ggml_backend_buffer_type_t ggml_layout(ggml_type type, int64_t n_in, int64_t n_out);

/// Copies of the matrices of a file in tiles (tile_product.h), else in what one of ggml's extra buffer types takes
/// ("repacked" blocks); other matrices stay in the file's mapping. Immutable after construction; any number of threads
/// may use it.
class PackedWeights {
  public:
    /// Packs those of `names` that can be packed, on `n_threads` threads, and drops the file's pages afterwards.
    /// Throws Error{runtime} where memory does not suffice.
    PackedWeights(const GgufFile & file, const std::set<std::string> & names, int32_t n_threads);

    /// Makes `tensor`, of the shape and type in the file, the packed matrix `name`; false where that is not packed.
    bool bind(const std::string & name, ggml_tensor & tensor) const;
    [[nodiscard]] uint64_t bytes() const;

  private:
    ggml_context_ptr ctx_;
    std::map<std::string, ggml_tensor *, std::less<>> tensors_;
    std::map<std::string, ggml_backend_buffer_ptr, std::less<>> buffers_;  // of each tensor
};

}  // namespace kvsieve
