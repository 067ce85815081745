// SPDX-License-Identifier: MIT
// Products of a quantised matrix in tiles (tile_layout.h) with a few rows, on processors with AVX-512 VNNI. Knows
// tiles, not graphs.
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

/// What 16 columns (outputs) of a block of a matrix type are packed into.
struct TileShape {
    size_t bytes = 0;       ///< of a tile; 0: there is no kernel for the type
    int32_t n_element = 0;  ///< of a column in a tile: the type's block, 32 or 256
    int32_t n_sum = 0;      ///< whole numbers of a row that belong to a block
    bool shifts = false;    ///< do the blocks of a row have shifts?
};
[[nodiscard]] TileShape tile_shape(ggml_type type) noexcept;

/// Fills `tiles`, n_in / n_element * n_out / 16 * bytes of the type's shape, from n_out rows of n_in elements as a GGUF
/// file has them. n_in a multiple of the shape's n_element, n_out of 16. Pure.
void pack_tiles(ggml_type type, const void * matrix, int64_t n_in, int64_t n_out, uint8_t * tiles) noexcept;

/// Does the processor have the instructions (AVX-512 VNNI)?
[[nodiscard]] bool tile_kernel_runs() noexcept;

/// n_row quantised rows of n_block blocks: a block of every row, then the next block of every row.
struct TileRows {
    int32_t n_row = 0;  ///< 1 .. kMaxTileRows
    int32_t n_block = 0;
    int8_t * quants = nullptr;  ///< [n_block][n_row][n_element]
    float * scales = nullptr;   ///< [n_block][n_row]
    float * shifts = nullptr;   ///< [n_block][n_row]: scale times the sum of the quants; if the shape has them
    int32_t * sums = nullptr;  ///< [n_block][n_row][n_sum]: what the type's kernel starts from, or its minima's weights
};

/// Bytes that n_row rows of n_in elements take for a matrix of `type`, and a view of them at `memory`, whose address is
/// a multiple of 4.
[[nodiscard]] size_t tile_rows_bytes(ggml_type type, int64_t n_in, int64_t n_row) noexcept;
[[nodiscard]] TileRows tile_rows_at(ggml_type type, int64_t n_in, int64_t n_row, void * memory) noexcept;

/// Quantises x, a row, to 8 bits as row `index` of `rows`: rounded as ggml rounds the other operand of the type (q8_0,
/// q8_1 or q8_K). Pure; rows may be filled by several threads. Needs tile_kernel_runs().
void quantise_tile_row(ggml_type type, const float * x, int32_t index, const TileRows & rows) noexcept;

/// out[r * out_stride + c] = the product of row r with column c of n_tile <= kTileGroup columns of tiles that follow
/// each other at `tiles`. The result has the same bits for any number of rows. Pure; any number of threads. Needs
/// tile_kernel_runs().
void multiply_tiles(ggml_type type, const TileRows & rows, const uint8_t * tiles, int32_t n_tile, float * out,
                    size_t out_stride) noexcept;

}  // namespace kvsieve
