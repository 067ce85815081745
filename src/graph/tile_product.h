// SPDX-License-Identifier: MIT
// Products of weight matrices that ggml packed into AMX tiles with few rows: what decoding consists of, beside
// attention.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include "graph/runner.h"

namespace kvsieve {

/// ggml's layout of AMX tiles; nullptr where the processor or the build of ggml has none.
[[nodiscard]] ggml_backend_buffer_type_t tile_layout();

/// Can tile_product() multiply w with n_row rows? The layout belongs to ggml and may change with it: each type is tried
/// once, and is taken only if a product has the bits of ggml's own. Any thread.
[[nodiscard]] bool takes_tile_product(const ggml_tensor & w, int64_t n_row);

/// w x, as ggml_mul_mat(w, x), for what takes_tile_product(). w [n_in, n_out], x [n_in, n].
[[nodiscard]] ggml_tensor * tile_product(const GraphBuilder & b, ggml_tensor * w, ggml_tensor * x);

}  // namespace kvsieve
