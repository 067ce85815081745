// SPDX-License-Identifier: MIT
// Matrices in the order of tile_layout.h, from the blocks of a GGUF file.
#include <array>
#include <cstring>
#include <type_traits>

#include "graph/tile_kernel.h"
#include "graph/tile_layout.h"

namespace kvsieve {
namespace {

template <class Tile>
using Numbers = std::array<uint8_t, kElements<Tile>>;

/// The low and the high nibbles of n bytes.
void split_nibbles(const uint8_t * from, size_t n, uint8_t * low, uint8_t * high) {
    for (size_t i = 0; i < n; ++i) {
        low[i] = from[i] & 15U;
        high[i] = from[i] >> 4U;
    }
}

// The numbers of a block, as the file has them: unsigned, or q8_0's signed bytes.

void unpack(Q40Tile /*type*/, const uint8_t * block, Numbers<Q40Tile> & out) {
    split_nibbles(block + 2, 16, out.data(), out.data() + 16);
}

void unpack(Q41Tile /*type*/, const uint8_t * block, Numbers<Q41Tile> & out) {
    split_nibbles(block + 4, 16, out.data(), out.data() + 16);
}

void unpack(Q80Tile /*type*/, const uint8_t * block, Numbers<Q80Tile> & out) {
    std::memcpy(out.data(), block + 2, out.size());
}

/// q4_K and q5_K: two groups of 32 in 32 bytes.
void split_groups(const uint8_t * from, uint8_t * out) {
    for (size_t pair = 0; pair < 4; ++pair) {
        uint8_t * low = out + pair * 64;
        split_nibbles(from + pair * 32, 32, low, low + 32);
    }
}

void unpack(Q4KTile /*type*/, const uint8_t * block, Numbers<Q4KTile> & out) {
    split_groups(block + 16, out.data());
}

void unpack(Q5KTile /*type*/, const uint8_t * block, Numbers<Q5KTile> & out) {
    const uint8_t * high = block + 16;
    split_groups(block + 48, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
        out[i] |= static_cast<uint8_t>(((high[i % 32] >> (i / 32)) & 1U) << 4U);
    }
}

void unpack(Q6KTile /*type*/, const uint8_t * block, Numbers<Q6KTile> & out) {
    for (size_t half = 0; half < 2; ++half) {
        const uint8_t * high = block + 128 + half * 32;
        uint8_t * to = out.data() + half * 128;
        split_nibbles(block + half * 64, 64, to, to + 64);
        for (size_t i = 0; i < 128; ++i) {
            to[i] |= static_cast<uint8_t>(((high[i % 32] >> (i / 32 * 2)) & 3U) << 4U);
        }
    }
}

void unpack(Iq4XsTile /*type*/, const uint8_t * block, Numbers<Iq4XsTile> & out) {
    for (size_t g = 0; g < 8; ++g) {
        uint8_t * low = out.data() + g * 32;
        split_nibbles(block + 8 + g * 16, 16, low, low + 16);
    }
}

/// Scale and minimum of group g from the 12 bytes of q4_K and q5_K, six bits each.
std::array<uint8_t, 2> six_bits(const uint8_t * bytes, size_t g) {
    if (g < 4) {
        return {static_cast<uint8_t>(bytes[g] & 63U), static_cast<uint8_t>(bytes[g + 4] & 63U)};
    }
    return {static_cast<uint8_t>((bytes[g + 4] & 15U) | (bytes[g - 4] >> 6U << 4U)),
            static_cast<uint8_t>((bytes[g + 4] >> 4U) | (bytes[g] >> 6U << 4U))};
}

/// Where a block keeps its scale; q4_1, q4_K and q5_K have the minimum's behind it.
template <class Tile>
constexpr size_t kScaleInBlock = std::is_same_v<Tile, Q6KTile> ? 208 : 0;

/// The scales of the groups, and the minima, of column n.
template <class Tile>
void pack_group_scales(const uint8_t * block, size_t n, uint8_t * tile) {
    for (size_t g = 0; g < Tile::kGroups; ++g) {
        uint8_t & scale = tile[Tile::kGroupScales + g * kColumns + n];
        if constexpr (Tile::kMinima) {
            const auto [own_scale, minimum] = six_bits(block + 4, g);
            scale = own_scale;
            tile[Tile::kMinimum + g / 2 * 2 * kColumns + 2 * n + g % 2] = minimum;
        } else if constexpr (std::is_same_v<Tile, Q6KTile>) {
            scale = block[192 + g];
        } else {
            uint16_t high = 0;
            std::memcpy(&high, block + 2, sizeof high);
            const unsigned low = (block[4 + g / 2] >> (g % 2 * 4)) & 15U;
            scale = static_cast<uint8_t>(static_cast<int>(low | ((high >> (2 * g)) & 3U) << 4U) - 32);
        }
    }
}

/// Column n of a tile of zeros from its block.
template <class Tile>
void pack_column(const uint8_t * block, size_t n, uint8_t * tile) {
    constexpr size_t kVectors = Tile::kGroupElements / 4;
    Numbers<Tile> numbers;
    unpack(Tile(), block, numbers);
    for (size_t e = 0; e < numbers.size(); e += 4) {
        const size_t g = e / Tile::kGroupElements, k = e % Tile::kGroupElements / 4;
        uint32_t four = 0;
        std::memcpy(&four, numbers.data() + e, sizeof four);
        const auto merge = [&](size_t row, uint32_t bits) {
            uint32_t there = 0;
            std::memcpy(&there, tile + row + 4 * n, sizeof there);
            there |= bits;
            std::memcpy(tile + row + 4 * n, &there, sizeof there);
        };
        if constexpr (std::is_same_v<Tile, Q80Tile>) {
            merge(64 * k, four);
        } else {
            merge((g * kVectors + k) / 2 * 64, (four & 0x0f0f0f0fU) << (k % 2 * 4));
            if constexpr (Tile::kBits > 4) {
                merge(128 * kColumns + g * 64, (four >> 4U & 0x0f0f0f0fU) << (k * (Tile::kBits - 4)));
            }
        }
    }
    if constexpr (Tile::kGroups > 1) {
        pack_group_scales<Tile>(block, n, tile);
    }
    std::memcpy(tile + Tile::kScale + 2 * n, block + kScaleInBlock<Tile>, 2);
    if constexpr (Tile::kMinima) {
        std::memcpy(tile + Tile::kScale + kHalfBytes + 2 * n, block + 2, 2);
    }
}

}  // namespace

void pack_tiles(ggml_type type, const void * matrix, int64_t n_in, int64_t n_out, uint8_t * tiles) noexcept {
    with_tile(type, [&](auto description) {
        using Tile = decltype(description);
        const auto n_block = static_cast<size_t>(n_in) / kElements<Tile>;
        const size_t block_bytes = ggml_type_size(type);
        std::memset(tiles, 0, n_block * static_cast<size_t>(n_out) / kColumns * Tile::kBytes);
        for (size_t column = 0; column < static_cast<size_t>(n_out); ++column) {
            const uint8_t * blocks = static_cast<const uint8_t *>(matrix) + column * n_block * block_bytes;
            uint8_t * tile = tiles + column / kColumns * n_block * Tile::kBytes;
            for (size_t block = 0; block < n_block; ++block) {
                pack_column<Tile>(blocks + block * block_bytes, column % kColumns, tile + block * Tile::kBytes);
            }
        }
    });
}

}  // namespace kvsieve
