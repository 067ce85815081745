// SPDX-License-Identifier: MIT
#include "graph/tile_product.h"

#include <algorithm>
#include <cstddef>

#include "graph/tile_kernel.h"

namespace kvsieve {
namespace {

/// Rows are worked on kMaxTileRows at a time: chunk i of n_row rows of n_in elements, behind the others at `memory`.
TileRows row_chunk(ggml_type type, int64_t n_in, int64_t n_row, int64_t i, void * memory) {
    const int64_t first = i * kMaxTileRows;
    return tile_rows_at(type, n_in, std::min<int64_t>(kMaxTileRows, n_row - first),
                        static_cast<std::byte *>(memory) + tile_rows_bytes(type, n_in, first));
}

/// dst, bytes: chunks of src[0], f32 rows, for products with matrices of the type that userdata points to.
void quantise_rows(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const ggml_type type = *static_cast<const ggml_type *>(userdata);
    const ggml_tensor * x = dst->src[0];
    for (int64_t r = ith; r < x->ne[1]; r += nth) {
        const auto * row =
            reinterpret_cast<const float *>(static_cast<const char *>(x->data) + static_cast<size_t>(r) * x->nb[1]);
        const TileRows chunk = row_chunk(type, x->ne[0], x->ne[1], r / kMaxTileRows, dst->data);
        quantise_tile_row(type, row, static_cast<int32_t>(r % kMaxTileRows), chunk);
    }
}

/// dst [n_out, n]; src[0] what quantise_rows() left, src[1] the matrix. The columns are split over the threads, a few
/// tiles at a time, which stay in the processor's cache for all rows.
void multiply(ggml_tensor * dst, int ith, int nth, void * /*userdata*/) {
    const ggml_tensor * w = dst->src[1];
    const TileShape shape = tile_shape(w->type);
    const size_t column_bytes = shape.bytes * static_cast<size_t>(w->ne[0] / shape.n_element);
    const int64_t n_tile = w->ne[1] / kTileColumns;
    const int64_t n_together = std::clamp<int64_t>(n_tile / nth, 1, kTileGroup);
    const int64_t n_group = (n_tile + n_together - 1) / n_together;
    for (int64_t i = n_group * ith / nth; i < n_group * (ith + 1) / nth; ++i) {
        const int64_t first = i * n_together;
        const auto * tiles = static_cast<const uint8_t *>(w->data) + static_cast<size_t>(first) * column_bytes;
        for (int64_t c = 0; c * kMaxTileRows < dst->ne[1]; ++c) {
            const TileRows chunk = row_chunk(w->type, w->ne[0], dst->ne[1], c, dst->src[0]->data);
            auto * out = reinterpret_cast<float *>(static_cast<char *>(dst->data) +
                                                   static_cast<size_t>(c * kMaxTileRows) * dst->nb[1]);
            multiply_tiles(w->type, chunk, tiles, static_cast<int32_t>(std::min(n_together, n_tile - first)),
                           out + first * kTileColumns, dst->nb[1] / sizeof(float));
        }
    }
}

/// What the `extra` of a matrix in tiles points to.
const char kInTiles = 0;

}  // namespace

size_t tiles_bytes(ggml_type type, int64_t n_in, int64_t n_out) {
    const TileShape shape = tile_shape(type);
    if (shape.bytes == 0 || n_in % shape.n_element != 0 || n_out % kTileColumns != 0 || !tile_kernel_runs()) {
        return 0;
    }
    return shape.bytes * static_cast<size_t>(n_in / shape.n_element * (n_out / kTileColumns));
}

void pack_into_tiles(ggml_tensor & w, const void * matrix) {
    pack_tiles(w.type, matrix, w.ne[0], w.ne[1], static_cast<uint8_t *>(w.data));
    w.extra = const_cast<char *>(&kInTiles);  // never written
}

bool is_in_tiles(const ggml_tensor & w) {
    return w.extra == &kInTiles;
}

ggml_tensor * tile_product(const GraphBuilder & b, ggml_tensor * w, ggml_tensor * x) {
    const auto bytes = static_cast<int64_t>(tile_rows_bytes(w->type, x->ne[0], x->ne[1]));
    ggml_tensor * rows =
        ggml_custom_4d(b.ctx, GGML_TYPE_I8, bytes, 1, 1, 1, &x, 1, quantise_rows, GGML_N_TASKS_MAX, &w->type);
    ggml_tensor * args[] = {rows, w};
    return ggml_custom_4d(b.ctx, GGML_TYPE_F32, w->ne[1], x->ne[1], 1, 1, args, 2, multiply, GGML_N_TASKS_MAX, nullptr);
}

}  // namespace kvsieve
