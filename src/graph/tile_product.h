// SPDX-License-Identifier: MIT
// Products of weight matrices in tiles (tile_layout.h), for any number of rows: what decoding consists of, beside
// attention, and most of a prompt. For processors with AVX-512 VNNI.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>

#include "graph/runner.h"

namespace kvsieve {

/// Bytes of a matrix of this type in tiles; 0 where the processor, the type or the shape does not allow them.
[[nodiscard]] size_t tiles_bytes(ggml_type type, int64_t n_in, int64_t n_out);

/// Packs `matrix`, as a GGUF file has it, into w.data, tiles_bytes() of memory, and marks w. Only tile_product() can
/// multiply w from then on. Several threads may pack, each its own.
void pack_into_tiles(ggml_tensor & w, const void * matrix);

/// Was w packed by pack_into_tiles(), or does it share such a tensor's data and mark (`extra`)?
[[nodiscard]] bool is_in_tiles(const ggml_tensor & w);

/// w x, as ggml_mul_mat(w, x) is for other matrices. w [n_in, n_out] in tiles, x [n_in, n]. A column of the result has
/// the same bits whatever n is.
[[nodiscard]] ggml_tensor * tile_product(const GraphBuilder & b, ggml_tensor * w, ggml_tensor * x);

}  // namespace kvsieve
