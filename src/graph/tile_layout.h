// SPDX-License-Identifier: MIT
// Matrices in tiles of 16 columns (outputs) x one block of the type, the tiles of 16 columns behind each other. In a
// tile, in the order of ggml's packing for AMX: the numbers in groups of elements, four elements of each column beside
// each other, two such rows of 64 bytes in one where four bits of a number are enough; bits above the fourth in a plane
// of their own; the groups' scales and minima; the blocks' scales and minima.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <tuple>

#include "graph/tile_kernel.h"

namespace kvsieve {

constexpr size_t kColumns = kTileColumns;
constexpr size_t kHalfBytes = kColumns * 2;  // a half precision number of every column

// Of a tile: kScale = where the scales of the blocks begin (half precision); behind them follow the minima, where a
// type has such (kMinima). kGroupScales, kMinimum = where the scales and the minima of the groups begin (bytes).
// kOffset = what the numbers, taken for unsigned, are too large by. kSums = whole numbers of a row that belong to a
// block: -kOffset times the sum of each group, or for types with minima of the groups pairs of sums.

/// Blocks of 32 elements: one group, whose scale is the block's.
struct SmallBlock {
    static constexpr size_t kGroups = 1;
    static constexpr size_t kGroupElements = 32;
    static constexpr size_t kSums = 1;
    static constexpr bool kMinima = false;
};

/// Blocks of 256 elements in groups with whole numbers for scales, which stand behind the numbers.
template <size_t kGroups_, size_t kNumberBytes_>
struct SuperBlock {
    static constexpr size_t kGroups = kGroups_;
    static constexpr size_t kGroupElements = 256 / kGroups;
    static constexpr size_t kGroupScales = kNumberBytes_ * kColumns;
    static constexpr bool kMinima = false;
};

struct Q40Tile : SmallBlock {
    static constexpr size_t kBits = 4;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q4_0;
    static constexpr size_t kScale = 16 * kColumns, kBytes = kScale + kHalfBytes;
    static constexpr int32_t kOffset = 8;
};

struct Q41Tile : SmallBlock {
    static constexpr size_t kBits = 4;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q4_1;
    static constexpr size_t kScale = 16 * kColumns, kBytes = kScale + 2 * kHalfBytes;
    static constexpr size_t kSums = 0;
    static constexpr bool kMinima = true;
};

struct Q80Tile : SmallBlock {
    static constexpr size_t kBits = 8;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q8_0;
    static constexpr size_t kScale = 32 * kColumns, kBytes = kScale + kHalfBytes;
    static constexpr int32_t kOffset = 128;
};

/// The same with whole numbers for minima behind the scales.
template <size_t kNumberBytes>
struct SuperBlockWithMinima : SuperBlock<8, kNumberBytes> {
    using Base = SuperBlock<8, kNumberBytes>;
    static constexpr size_t kMinimum = Base::kGroupScales + Base::kGroups * kColumns;
    static constexpr size_t kScale = kMinimum + Base::kGroups * kColumns, kBytes = kScale + 2 * kHalfBytes;
    static constexpr size_t kSums = Base::kGroups / 2;
    static constexpr bool kMinima = true;
};

struct Q4KTile : SuperBlockWithMinima<128> {
    static constexpr size_t kBits = 4;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q4_K;
};

struct Q5KTile : SuperBlockWithMinima<160> {
    static constexpr size_t kBits = 5;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q5_K;
};

struct Q6KTile : SuperBlock<16, 192> {
    static constexpr size_t kBits = 6;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_Q6_K;
    static constexpr size_t kScale = kGroupScales + 16 * kColumns, kBytes = kScale + kHalfBytes;
    static constexpr size_t kSums = kGroups;
    static constexpr int32_t kOffset = 32;
};

struct Iq4XsTile : SuperBlock<8, 128> {
    static constexpr size_t kBits = 4;  // of a number
    static constexpr ggml_type kType = GGML_TYPE_IQ4_XS;
    static constexpr size_t kScale = kGroupScales + 8 * kColumns, kBytes = kScale + kHalfBytes;
    static constexpr size_t kSums = kGroups;
    static constexpr int32_t kOffset = 128;
};

using Tiles = std::tuple<Q40Tile, Q41Tile, Q80Tile, Q4KTile, Q5KTile, Q6KTile, Iq4XsTile>;

template <class Tile>
constexpr size_t kElements = Tile::kGroups * Tile::kGroupElements;

/// body(tile) with the description of the type's tiles; false if there is none.
template <class Body>
bool with_tile(ggml_type type, const Body & body) {
    return std::apply([&](auto... tile) { return ((type == decltype(tile)::kType && (body(tile), true)) || ...); },
                      Tiles());
}

}  // namespace kvsieve
