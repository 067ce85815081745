// SPDX-License-Identifier: MIT
// Products of a matrix in ggml's AMX layout with few rows: the inner loops of decoding on processors that have AMX.
// Knows tiles, not graphs.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>

namespace kvsieve {

inline constexpr int32_t kTileColumns = 16;
/// Most tiles beside each other that are multiplied together.
inline constexpr int32_t kTileGroup = 4;
/// Most rows that are multiplied together.
inline constexpr int32_t kMaxTileRows = 32;

/// What ggml packs 16 columns (outputs) of a block of a matrix type into.
struct TileShape {
    size_t bytes = 0;                      ///< of a tile; 0: there is no kernel for the type
    int32_t n_element = 0;                 ///< of a column in a tile: the type's block, 32 or 256
    int32_t n_sum = 0;                     ///< groups of elements whose sums the kernel needs
    ggml_type row_type = GGML_TYPE_COUNT;  ///< what the other operand is quantised to: q8_0, q8_1 or q8_K
};
[[nodiscard]] TileShape tile_shape(ggml_type type) noexcept;

/// Does the processor have the instructions (AVX-512 VNNI)?
[[nodiscard]] bool tile_kernel_runs() noexcept;

/// n_row quantised rows of n_block blocks: a block of every row, then the next block of every row.
struct TileRows {
    int32_t n_row = 0;  ///< 1 .. kMaxTileRows
    int32_t n_block = 0;
    int8_t * quants = nullptr;  ///< [n_block][n_row][n_element]
    float * scales = nullptr;   ///< [n_block][n_row]
    float * shifts = nullptr;   ///< [n_block][n_row]: scale times the sum of the quants; q8_1 only
    int32_t * sums = nullptr;  ///< [n_block][n_row][n_sum]: what the type's kernel starts from, or its minima's weights
};

/// Bytes that `rows` of a matrix of `type` with n_in elements a row take, and a view of them at `memory`, whose address
/// is a multiple of 64.
[[nodiscard]] size_t tile_rows_bytes(ggml_type type, int64_t n_in, int64_t n_row) noexcept;
[[nodiscard]] TileRows tile_rows_at(ggml_type type, int64_t n_in, int64_t n_row, void * memory) noexcept;

/// Sorts a row that ggml quantised to the shape's row_type into row `index` of `rows`. Pure; rows may be filled by
/// several threads.
void fill_tile_row(ggml_type type, const void * quantised, int32_t index, const TileRows & rows) noexcept;

/// out[r * out_stride + c] = the product of row r with column c of n_tile <= kTileGroup columns of tiles that follow
/// each other at `tiles`. Sums up in the order in which ggml's own kernels do, so that the result has the same bits for
/// any number of rows, and ggml's. Pure; any number of threads. Needs tile_kernel_runs().
void multiply_tiles(ggml_type type, const TileRows & rows, const uint8_t * tiles, int32_t n_tile, float * out,
                    size_t out_stride) noexcept;

}  // namespace kvsieve
