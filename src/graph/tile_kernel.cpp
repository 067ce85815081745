// SPDX-License-Identifier: MIT
// A tile's numbers are unpacked once, in registers, to bytes from 0 on, and multiplied with every row by the
// instruction for unsigned times signed bytes; what the bytes are too large by comes off through the sums of the rows'
// own bytes. The products of a group are whole numbers; floats sum up groups and blocks, in their order.
#include "graph/tile_kernel.h"

#include <cstring>
#include <limits>
#include <type_traits>

#include "graph/tile_layout.h"
#include "policy/highway_targets.h"
// what stands above belongs before Highway
#include <hwy/base.h>

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake of ours (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace kvsieve {
namespace {

#if HWY_ARCH_X86_64
HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

HWY_INLINE __m512i load(const uint8_t * bytes) {
    return _mm512_loadu_si512(bytes);
}

HWY_INLINE __m512i low_nibbles(__m512i bytes) {
    return _mm512_and_si512(bytes, _mm512_set1_epi8(15));
}

HWY_INLINE __m512i high_nibbles(__m512i bytes) {
    return low_nibbles(_mm512_srli_epi16(bytes, 4));
}

HWY_INLINE __m512i shifted_right(__m512i words, size_t n) {
    return _mm512_srl_epi16(words, _mm_cvtsi64_si128(static_cast<int64_t>(n)));
}

HWY_INLINE __m512 halves(const uint8_t * bytes) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
}

/// The nearest number in half precision.
HWY_INLINE float in_half(float x) {
    return _mm512_cvtss_f32(_mm512_cvtph_ps(_mm512_cvtps_ph(_mm512_set1_ps(x), _MM_FROUND_TO_NEAREST_INT)));
}

/// 16 elements times `inverse`, rounded to whole numbers and stored as bytes; their sum.
HWY_INLINE int32_t round_sixteen(const float * x, float inverse, int8_t * quants) {
    const __m512i whole = _mm512_cvt_roundps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)),
                                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(quants), _mm512_cvtsepi32_epi8(whole));
    return _mm512_reduce_add_epi32(
        _mm512_max_epi32(_mm512_min_epi32(whole, _mm512_set1_epi32(127)), _mm512_set1_epi32(-128)));
}

/// The element of the largest magnitude, the first of several; not a number if one is none.
template <size_t kN>
HWY_INLINE float largest(const float * x) {
    __m512 most = _mm512_setzero_ps();
    unsigned none = 0;
    for (size_t e = 0; e < kN; e += 16) {
        const __m512 sixteen = _mm512_loadu_ps(x + e);
        most = _mm512_max_ps(most, _mm512_abs_ps(sixteen));
        none |= _mm512_cmp_ps_mask(sixteen, sixteen, _CMP_UNORD_Q);
    }
    if (none != 0) {
        return std::numeric_limits<float>::quiet_NaN();
    }
    const __m512 magnitude = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (size_t e = 0; e < kN; e += 16) {
        const __mmask16 there = _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_loadu_ps(x + e)), magnitude, _CMP_EQ_OQ);
        if (there != 0) {
            return x[e + static_cast<size_t>(__builtin_ctz(there))];
        }
    }
    return 0;
}

/// As ggml rounds rows to q8_0 and q8_1 (blocks of 32) and to q8_K (256).
template <class Tile>
void quantise_row(const float * x, size_t index, const TileRows & rows) {
    const auto n_row = static_cast<size_t>(rows.n_row);
    for (size_t block = 0; block < static_cast<size_t>(rows.n_block); ++block, x += kElements<Tile>) {
        const size_t at = block * n_row + index;
        const float most = largest<kElements<Tile>>(x);
        int8_t * quants = rows.quants + at * kElements<Tile>;
        int32_t * sums = rows.sums + at * Tile::kSums;
        if constexpr (Tile::kGroups == 1) {
            const float magnitude = most < 0 ? -most : most;
            const float inverse = magnitude > 0 ? 127 / magnitude : 0;
            rows.scales[at] = in_half(magnitude / 127);
            int32_t sum = round_sixteen(x, inverse, quants);
            sum += round_sixteen(x + 16, inverse, quants + 16);
            if constexpr (Tile::kMinima) {
                rows.shifts[at] = in_half(magnitude / 127 * static_cast<float>(sum));
            } else {
                *sums = -Tile::kOffset * sum;
            }
        } else {
            const float inverse = most != 0 ? -127 / most : 0;
            rows.scales[at] = most != 0 ? 1 / inverse : 0;
            for (size_t g = 0; g < Tile::kGroups; ++g) {
                int32_t sum = 0;
                for (size_t e = g * Tile::kGroupElements; e < (g + 1) * Tile::kGroupElements; e += 16) {
                    sum += round_sixteen(x + e, inverse, quants + e);
                }
                if constexpr (Tile::kMinima) {
                    const auto narrow = static_cast<int16_t>(sum);
                    std::memcpy(reinterpret_cast<int16_t *>(sums) + g, &narrow, sizeof narrow);
                } else {
                    sums[g] = -Tile::kOffset * sum;
                }
            }
        }
    }
}

/// Group `g` of a tile: in vector k the elements 4 k .. 4 k + 3 of each of the 16 columns.
template <class Tile>
HWY_INLINE void unpack(const uint8_t * tile, size_t g, __m512i * numbers) {
    constexpr size_t kVectors = Tile::kGroupElements / 4;
    if constexpr (std::is_same_v<Tile, Q80Tile>) {
        KVSIEVE_UNROLL
        for (size_t k = 0; k < kVectors; ++k) {  // signed bytes: 128 more
            numbers[k] = _mm512_xor_si512(load(tile + 64 * k), _mm512_set1_epi8(-128));
        }
        return;
    }
    const uint8_t * nibbles = tile + g * kVectors * 32;
    KVSIEVE_UNROLL
    for (size_t k = 0; k < kVectors; k += 2) {
        const __m512i both = load(nibbles + 32 * k);
        numbers[k] = low_nibbles(both);
        numbers[k + 1] = high_nibbles(both);
    }
    if constexpr (std::is_same_v<Tile, Q5KTile>) {
        const __m512i high = load(tile + 128 * kColumns + g * 64);
        KVSIEVE_UNROLL
        for (size_t k = 0; k < kVectors; ++k) {  // bit k of a byte belongs to vector k
            const __m512i bit = _mm512_and_si512(shifted_right(high, k), _mm512_set1_epi8(1));
            numbers[k] = _mm512_or_si512(numbers[k], _mm512_slli_epi16(bit, 4));
        }
    } else if constexpr (std::is_same_v<Tile, Q6KTile>) {
        const __m512i high = load(tile + 128 * kColumns + g * 64);
        KVSIEVE_UNROLL
        for (size_t k = 0; k < kVectors; ++k) {  // bits 2 k and 2 k + 1
            const __m512i bits = _mm512_and_si512(shifted_right(high, 2 * k), _mm512_set1_epi8(3));
            numbers[k] = _mm512_or_si512(numbers[k], _mm512_slli_epi16(bits, 4));
        }
    } else if constexpr (std::is_same_v<Tile, Iq4XsTile>) {
        // the 16 values of the type, 128 more
        const __m512i values = _mm512_broadcast_i32x4(
            _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
        KVSIEVE_UNROLL
        for (size_t k = 0; k < kVectors; ++k) {
            numbers[k] = _mm512_shuffle_epi8(values, numbers[k]);
        }
    }
}

/// `sum` + the product of a group of a row with each column.
template <size_t kVectors>
HWY_INLINE __m512i multiply_group(__m512i sum, const __m512i * numbers, const int8_t * quants) {
    KVSIEVE_UNROLL
    for (size_t k = 0; k < kVectors; ++k) {
        int32_t four = 0;
        std::memcpy(&four, quants + 4 * k, sizeof four);
        sum = _mm512_dpbusd_epi32(sum, numbers[k], _mm512_set1_epi32(four));
    }
    return sum;
}

/// Fetches what stands some way behind group `g` of a column's tiles, while that is worked on.
template <class Tile>
HWY_INLINE void fetch_ahead(const uint8_t * tile, size_t g) {
    constexpr size_t kAheadBytes = 2304, kGroupBytes = (Tile::kBytes + Tile::kGroups - 1) / Tile::kGroups;
    const auto * ahead = reinterpret_cast<const char *>(tile) + kAheadBytes + g * kGroupBytes;
    for (size_t line = 0; line < kGroupBytes; line += 64) {
        _mm_prefetch(ahead + line, _MM_HINT_T0);
    }
}

/// Adds the products of n_row rows with a tile to acc[row]. `rows` begins with those of the tile's block.
template <class Tile>
HWY_INLINE void multiply_tile(const TileRows & rows, size_t n_row, const uint8_t * tile, __m512 * acc) {
    constexpr size_t kVectors = Tile::kGroupElements / 4;
    const int8_t * quants = rows.quants;
    const float * scales = rows.scales;
    const int32_t * starts = rows.sums;
    const __m512 scale = halves(tile + Tile::kScale);
    __m512i numbers[kVectors];
    if constexpr (Tile::kGroups == 1) {
        fetch_ahead<Tile>(tile, 0);
        unpack<Tile>(tile, 0, numbers);
        for (size_t r = 0; r < n_row; ++r) {
            const __m512i start = Tile::kSums == 1 ? _mm512_set1_epi32(starts[r]) : _mm512_setzero_si512();
            const __m512i sum = multiply_group<kVectors>(start, numbers, quants + r * kElements<Tile>);
            __m512 product =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(scales[r])), acc[r]);
            if constexpr (Tile::kMinima) {
                product =
                    _mm512_fmadd_ps(halves(tile + Tile::kScale + kHalfBytes), _mm512_set1_ps(rows.shifts[r]), product);
            }
            acc[r] = product;
        }
    } else {
        __m512 sums[kMaxTileRows];
        for (size_t g = 0; g < Tile::kGroups; ++g) {
            fetch_ahead<Tile>(tile, g);
            unpack<Tile>(tile, g, numbers);
            const __m512 group_scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
                _mm_loadu_si128(reinterpret_cast<const __m128i *>(tile + Tile::kGroupScales + g * kColumns))));
            for (size_t r = 0; r < n_row; ++r) {
                const __m512i start =
                    Tile::kMinima ? _mm512_setzero_si512() : _mm512_set1_epi32(starts[r * Tile::kSums + g]);
                const int8_t * group = quants + r * kElements<Tile> + g * Tile::kGroupElements;
                const __m512 sum = _mm512_cvtepi32_ps(multiply_group<kVectors>(start, numbers, group));
                sums[r] = g == 0 ? _mm512_mul_ps(sum, group_scale) : _mm512_fmadd_ps(sum, group_scale, sums[r]);
            }
        }
        [[maybe_unused]] __m512i minima[Tile::kSums];  // of two groups each
        [[maybe_unused]] __m512 minimum_scale;
        if constexpr (Tile::kMinima) {
            KVSIEVE_UNROLL
            for (size_t k = 0; k < Tile::kSums; ++k) {
                minima[k] = _mm512_cvtepi8_epi16(
                    _mm256_loadu_si256(reinterpret_cast<const __m256i *>(tile + Tile::kMinimum + k * 2 * kColumns)));
            }
            minimum_scale = halves(tile + Tile::kScale + kHalfBytes);
        }
        for (size_t r = 0; r < n_row; ++r) {
            const __m512 row_scale = _mm512_set1_ps(scales[r]);
            __m512 product = _mm512_fmadd_ps(sums[r], _mm512_mul_ps(scale, row_scale), acc[r]);
            if constexpr (Tile::kMinima) {
                __m512i sum = _mm512_setzero_si512();
                KVSIEVE_UNROLL
                for (size_t k = 0; k < Tile::kSums; ++k) {
                    sum = _mm512_dpwssd_epi32(sum, _mm512_set1_epi32(starts[r * Tile::kSums + k]), minima[k]);
                }
                product = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(minimum_scale, row_scale), product);
            }
            acc[r] = product;
        }
    }
}

template <class Tile>
void multiply_columns(const TileRows & rows, const uint8_t * tiles, size_t n_tile, float * out, size_t out_stride) {
    const auto n_row = static_cast<size_t>(rows.n_row), n_block = static_cast<size_t>(rows.n_block);
    __m512 acc[kTileGroup][kMaxTileRows];
    for (size_t c = 0; c < n_tile; ++c) {
        for (size_t r = 0; r < n_row; ++r) {
            acc[c][r] = _mm512_setzero_ps();
        }
    }
    TileRows of_block = rows;
    for (size_t block = 0; block < n_block; ++block) {
        for (size_t c = 0; c < n_tile; ++c) {
            const uint8_t * tile = tiles + (c * n_block + block) * Tile::kBytes;
            multiply_tile<Tile>(of_block, n_row, tile, acc[c]);
        }
        of_block.quants += n_row * kElements<Tile>;
        of_block.scales += n_row;
        of_block.shifts += n_row;
        of_block.sums += n_row * Tile::kSums;
    }
    for (size_t c = 0; c < n_tile; ++c) {
        for (size_t r = 0; r < n_row; ++r) {
            _mm512_storeu_ps(out + r * out_stride + c * kColumns, acc[c][r]);
        }
    }
}

HWY_POP_ATTRIBUTES
#endif

}  // namespace

TileShape tile_shape(ggml_type type) noexcept {
    TileShape shape;
    with_tile(type, [&](auto tile) {
        using Tile = decltype(tile);
        shape = {Tile::kBytes, static_cast<int32_t>(kElements<Tile>), static_cast<int32_t>(Tile::kSums),
                 Tile::kGroups == 1 && Tile::kMinima};
    });
    return shape;
}

bool tile_kernel_runs() noexcept {
#if HWY_ARCH_X86_64 && (defined(__GNUC__) || defined(__clang__))
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
           __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("fma") != 0;
#else
    return false;
#endif
}

TileRows tile_rows_at(ggml_type type, int64_t n_in, int64_t n_row, void * memory) noexcept {
    const TileShape shape = tile_shape(type);
    const auto n = static_cast<size_t>(n_in / shape.n_element * n_row);  // blocks
    auto * bytes = static_cast<int8_t *>(memory);
    auto * scales = reinterpret_cast<float *>(bytes + n * static_cast<size_t>(shape.n_element));
    float * shifts = scales + n;
    auto * sums = reinterpret_cast<int32_t *>(shape.shifts ? shifts + n : shifts);
    return {.n_row = static_cast<int32_t>(n_row),
            .n_block = static_cast<int32_t>(n_in / shape.n_element),
            .quants = bytes,
            .scales = scales,
            .shifts = shifts,
            .sums = sums};
}

size_t tile_rows_bytes(ggml_type type, int64_t n_in, int64_t n_row) noexcept {
    const TileShape shape = tile_shape(type);
    const size_t numbers = 1 + (shape.shifts ? 1U : 0U) + static_cast<size_t>(shape.n_sum);
    return static_cast<size_t>(n_in / shape.n_element * n_row) *
           (static_cast<size_t>(shape.n_element) + numbers * sizeof(float));
}

void quantise_tile_row([[maybe_unused]] ggml_type type, [[maybe_unused]] const float * x,
                       [[maybe_unused]] int32_t index, [[maybe_unused]] const TileRows & rows) noexcept {
#if HWY_ARCH_X86_64
    with_tile(type, [&](auto tile) { quantise_row<decltype(tile)>(x, static_cast<size_t>(index), rows); });
#endif
}

void multiply_tiles([[maybe_unused]] ggml_type type, [[maybe_unused]] const TileRows & rows,
                    [[maybe_unused]] const uint8_t * tiles, [[maybe_unused]] int32_t n_tile,
                    [[maybe_unused]] float * out, [[maybe_unused]] size_t out_stride) noexcept {
#if HWY_ARCH_X86_64
    with_tile(type, [&](auto tile) {
        multiply_columns<decltype(tile)>(rows, tiles, static_cast<size_t>(n_tile), out, out_stride);
    });
#endif
}

}  // namespace kvsieve
