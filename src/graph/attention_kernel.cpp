// SPDX-License-Identifier: MIT
// Two passes over a range: keys to scores, values to the weighted sum. Both work on tiles of rows that stay in the L1
// cache, in blocks of 32 elements (the blocks of q8_0 and q4_0). Rows are read once from memory, in the order in which
// they lie, and converted once: in registers for few queries, into a tile of floats for many.
#include "graph/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

// Loops over vectors in registers: GCC keeps the arrays in registers only where it unrolls them early.
#undef KVSIEVE_UNROLL
#if defined(__GNUC__) && !defined(__clang__)
#define KVSIEVE_UNROLL _Pragma("GCC unroll 8")
#else
#define KVSIEVE_UNROLL
#endif

// Vectors of unknown length cannot stand in arrays; such processors have NEON too.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/attention_kernel.cpp"  // this file, compiled once per instruction set
#include <hwy/foreach_target.h>
// clang-format off: highway.h must come behind foreach_target.h
#include <hwy/cache_control.h>
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvsieve {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int32_t kBlock = 32;         // elements
constexpr int32_t kTileRows = 64;      // 16 KiB of f16 rows of 128
constexpr int32_t kWideFloats = 4096;  // 16 KiB of converted rows
constexpr int32_t kMaxDim = 1024;
constexpr int32_t kMaxBlocks = kMaxDim / kBlock;
constexpr size_t kLine = 64;     // bytes of a cache line
constexpr size_t kAhead = 2048;  // bytes that rows are fetched before they are needed

using F = hn::CappedTag<float, kBlock>;
using V = hn::Vec<F>;

/// f16 rows: no scales.
struct F16Row {
    static constexpr size_t kBlockBytes = 2 * kBlock;
    static constexpr bool kScaled = false;
    static HWY_INLINE V load(const uint8_t * block, size_t i) {
        const hn::Rebind<hwy::float16_t, F> half;
        return hn::PromoteTo(F(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t *>(block) + i));
    }
};

/// ggml's q8_0: half precision scale, 32 signed bytes.
struct Q8Row {
    static constexpr size_t kBlockBytes = 2 + kBlock;
    static constexpr bool kScaled = true;
    static HWY_INLINE V load(const uint8_t * block, size_t i) {
        const hn::Rebind<int32_t, F> wide;
        const hn::Rebind<int8_t, F> bytes;
        const auto x = hn::LoadU(bytes, reinterpret_cast<const int8_t *>(block) + 2 + i);
        return hn::ConvertTo(F(), hn::PromoteTo(wide, x));
    }
};

/// ggml's q4_0: half precision scale, 16 bytes; elements 0..15 are the low nibbles, 16..31 the high ones, minus 8.
struct Q4Row {
    static constexpr size_t kBlockBytes = 2 + kBlock / 2;
    static constexpr bool kScaled = true;
    static HWY_INLINE V load(const uint8_t * block, size_t i) {
        const hn::Rebind<int32_t, F> wide;
        const hn::Rebind<uint8_t, F> bytes;
        const bool high = i >= kBlock / 2;
        const auto x = hn::PromoteTo(wide, hn::LoadU(bytes, block + 2 + (high ? i - kBlock / 2 : i)));
        const auto nibble = high ? hn::ShiftRight<4>(x) : hn::And(x, hn::Set(wide, 15));
        return hn::ConvertTo(F(), hn::Sub(nibble, hn::Set(wide, 8)));
    }
};

/// Rows that were converted before, scales included.
struct F32Row {
    static constexpr size_t kBlockBytes = 4 * kBlock;
    static constexpr bool kScaled = false;
    static HWY_INLINE V load(const uint8_t * block, size_t i) {
        return hn::LoadU(F(), reinterpret_cast<const float *>(block) + i);
    }
};

/// Half precision scales of n rows as floats, [n][n_block].
template <class Row>
HWY_INLINE void gather_scales(const uint8_t * rows, size_t row_bytes, int32_t n, int32_t n_block, float * out) {
    HWY_ALIGN uint16_t raw[kTileRows * kMaxBlocks];
    uint16_t * to = raw;
    for (int32_t r = 0; r < n; ++r) {
        for (int32_t b = 0; b < n_block; ++b, ++to) {
            std::memcpy(to, rows + static_cast<size_t>(r) * row_bytes + static_cast<size_t>(b) * Row::kBlockBytes, 2);
        }
    }
    const F d;
    const hn::Rebind<hwy::float16_t, F> half;
    const size_t lanes = hn::Lanes(d);
    const auto count = static_cast<size_t>(n) * static_cast<size_t>(n_block);
    for (size_t i = 0; i < count; i += lanes) {  // both arrays are whole vectors long
        hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t *>(raw) + i)), d, out + i);
    }
}

/// The elements behind the last whole block, which quantised rows do not have.
template <class Row>
HWY_INLINE float tail_element(const uint8_t * row, int32_t i) {
    if constexpr (Row::kBlockBytes == 4 * kBlock) {
        float x;
        std::memcpy(&x, row + 4 * static_cast<size_t>(i), 4);
        return x;
    }
    const hn::CappedTag<float, 1> one;
    const hn::Rebind<hwy::float16_t, decltype(one)> half;
    return hn::GetLane(hn::PromoteTo(one, hn::LoadU(half, reinterpret_cast<const hwy::float16_t *>(row) + i)));
}

HWY_INLINE void fetch(const uint8_t * bytes, size_t n) {
    for (size_t at = 0; at < n; at += kLine) {
        hwy::Prefetch(bytes + at);
    }
}

/// scores[i][r] = scale * q[i] . k[r] for kQ queries and kR rows; scores are kRangeSlots apart.
template <class Row, int kQ, int kR>
HWY_INLINE void score_rows(const AttendRange & a, const float * q, const uint8_t * rows, const float * scales,
                           float * scores) {
    const F f;
    const size_t lanes = hn::Lanes(f);
    const int32_t n_block = a.head_dim / kBlock;
    const auto d = static_cast<size_t>(a.head_dim);
    V acc[kQ][kR];
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            acc[i][r] = hn::Zero(f);
        }
    }
    constexpr bool kDirect = !Row::kScaled && kQ * kR >= 6;  // enough sums to hide the latency of one
    V dot[kQ][kR];
    for (int32_t b = 0; b < n_block; ++b) {
        if constexpr (!kDirect) {
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    dot[i][r] = hn::Zero(f);
                }
            }
        }
        for (size_t e = 0; e < kBlock; e += lanes) {
            V x[kR];
            KVSIEVE_UNROLL
            for (int r = 0; r < kR; ++r) {
                x[r] = Row::load(
                    rows + static_cast<size_t>(r) * a.row_bytes + static_cast<size_t>(b) * Row::kBlockBytes, e);
            }
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                const V query =
                    hn::LoadU(f, q + static_cast<size_t>(i) * d + static_cast<size_t>(b) * size_t{kBlock} + e);
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    V & to = kDirect ? acc[i][r] : dot[i][r];
                    to = hn::MulAdd(x[r], query, to);
                }
            }
        }
        if constexpr (!kDirect) {
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    if constexpr (Row::kScaled) {
                        acc[i][r] = hn::MulAdd(dot[i][r], hn::Set(f, scales[r * n_block + b]), acc[i][r]);
                    } else {
                        acc[i][r] = hn::Add(acc[i][r], dot[i][r]);
                    }
                }
            }
        }
    }
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            float s = hn::GetLane(hn::SumOfLanes(f, acc[i][r]));
            for (int32_t e = n_block * kBlock; e < a.head_dim; ++e) {
                s += tail_element<Row>(rows + static_cast<size_t>(r) * a.row_bytes, e) *
                     q[static_cast<size_t>(i) * d + static_cast<size_t>(e)];
            }
            scores[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)] = a.scale * s;
        }
    }
}

/// acc[i] += sum over kR rows of weights[i][r] v[r], for kQ queries; acc are `stride` floats apart.
template <class Row, int kQ, int kR>
HWY_INLINE void add_rows(const AttendRange & a, const uint8_t * rows, const float * scales, const float * weights,
                         float * acc, size_t stride) {
    const F f;
    constexpr size_t kLanes = hn::MaxLanes(F());
    const int32_t n_block = a.head_dim / kBlock;
    V w[kQ][kR];
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            w[i][r] = hn::Set(f, weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)]);
        }
    }
    for (int32_t b = 0; b < n_block; ++b) {
        V scaled[kQ][kR];
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                if constexpr (Row::kScaled) {
                    scaled[i][r] = hn::Mul(w[i][r], hn::Set(f, scales[r * n_block + b]));
                } else {
                    scaled[i][r] = w[i][r];
                }
            }
        }
        const uint8_t * block = rows + static_cast<size_t>(b) * Row::kBlockBytes;
        KVSIEVE_UNROLL
        for (size_t e = 0; e < kBlock; e += kLanes) {
            V x[kR];
            KVSIEVE_UNROLL
            for (int r = 0; r < kR; ++r) {
                x[r] = Row::load(block + static_cast<size_t>(r) * a.row_bytes, e);
            }
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                float * out = acc + static_cast<size_t>(i) * stride + static_cast<size_t>(b) * size_t{kBlock} + e;
                V sum = hn::LoadU(f, out);
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    sum = hn::MulAdd(x[r], scaled[i][r], sum);
                }
                hn::StoreU(sum, f, out);
            }
        }
    }
    for (int32_t e = n_block * kBlock; e < a.head_dim; ++e) {
        for (int i = 0; i < kQ; ++i) {
            for (int r = 0; r < kR; ++r) {
                acc[static_cast<size_t>(i) * stride + static_cast<size_t>(e)] +=
                    weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)] *
                    tail_element<Row>(rows + static_cast<size_t>(r) * a.row_bytes, e);
            }
        }
    }
}

/// acc[i] += sum over n rows of weights[i][r] v[r], for kQ queries; acc are `stride` floats apart. For rows in the L1
/// cache, which are walked through once for every few columns.
template <int kQ>
HWY_INLINE void add_values(const AttendRange & a, const uint8_t * rows, int32_t n, const float * weights, float * acc,
                           size_t stride) {
    using Row = F32Row;
    const F f;
    constexpr size_t kLanes = hn::MaxLanes(F());
    // whose sums stay in registers
    constexpr size_t kVectors = std::min<size_t>(kQ >= 4 ? 2 : 4, kBlock / kLanes);
    const int32_t n_block = a.head_dim / kBlock;
    for (int32_t b = 0; b < n_block; ++b) {
        for (size_t e = 0; e < kBlock; e += kVectors * kLanes) {
            float * out = acc + static_cast<size_t>(b) * size_t{kBlock} + e;
            V sum[kQ][kVectors];
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                KVSIEVE_UNROLL
                for (size_t j = 0; j < kVectors; ++j) {
                    sum[i][j] = hn::LoadU(f, out + static_cast<size_t>(i) * stride + j * kLanes);
                }
            }
            const uint8_t * block = rows + static_cast<size_t>(b) * Row::kBlockBytes;
            for (int32_t r = 0; r < n; ++r, block += a.row_bytes) {
                V w[kQ];
                KVSIEVE_UNROLL
                for (int i = 0; i < kQ; ++i) {
                    w[i] = hn::Set(f, weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)]);
                }
                KVSIEVE_UNROLL
                for (size_t j = 0; j < kVectors; ++j) {
                    const V x = Row::load(block, e + j * kLanes);
                    KVSIEVE_UNROLL
                    for (int i = 0; i < kQ; ++i) {
                        sum[i][j] = hn::MulAdd(x, w[i], sum[i][j]);
                    }
                }
            }
            KVSIEVE_UNROLL
            for (int i = 0; i < kQ; ++i) {
                KVSIEVE_UNROLL
                for (size_t j = 0; j < kVectors; ++j) {
                    hn::StoreU(sum[i][j], f, out + static_cast<size_t>(i) * stride + j * kLanes);
                }
            }
        }
    }
    for (int32_t e = n_block * kBlock; e < a.head_dim; ++e) {
        for (int i = 0; i < kQ; ++i) {
            float sum = acc[static_cast<size_t>(i) * stride + static_cast<size_t>(e)];
            for (int32_t r = 0; r < n; ++r) {
                sum += weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)] *
                       tail_element<Row>(rows + static_cast<size_t>(r) * a.row_bytes, e);
            }
            acc[static_cast<size_t>(i) * stride + static_cast<size_t>(e)] = sum;
        }
    }
}

/// Converts n rows to floats, [n][d].
template <class Row>
HWY_INLINE void convert_rows(const AttendRange & a, const uint8_t * rows, int32_t n, const float * scales,
                             float * out) {
    const F f;
    const size_t lanes = hn::Lanes(f);
    const int32_t n_block = a.head_dim / kBlock;
    for (int32_t r = 0; r < n; ++r, rows += a.row_bytes, out += a.head_dim) {
        fetch(rows + kAhead, a.row_bytes);
        for (int32_t b = 0; b < n_block; ++b) {
            for (size_t e = 0; e < kBlock; e += lanes) {
                V x = Row::load(rows + static_cast<size_t>(b) * Row::kBlockBytes, e);
                if constexpr (Row::kScaled) {
                    x = hn::Mul(x, hn::Set(f, scales[r * n_block + b]));
                }
                hn::StoreU(x, f, out + static_cast<size_t>(b) * size_t{kBlock} + e);
            }
        }
        for (int32_t e = n_block * kBlock; e < a.head_dim; ++e) {
            out[e] = tail_element<Row>(rows, e);
        }
    }
}

/// Queries that share one conversion of a row: as many as leave their sums in registers.
constexpr int kMaxQuery = hn::MaxLanes(F()) >= 16 ? 4 : hn::MaxLanes(F()) >= 8 ? 2 : 1;
constexpr int kMaxWideQuery = 4;

/// Calls pass(std::integral_constant<int, kQ>, first query) over all queries, with kQ = kMax as long as it fits.
template <int kMax, class Pass>
HWY_INLINE void over_queries(int32_t n_query, Pass && pass) {
    int32_t i = 0;
    if constexpr (kMax >= 4) {
        for (; i + 4 <= n_query; i += 4) {
            pass(std::integral_constant<int, 4>(), i);
        }
    }
    if constexpr (kMax >= 3) {
        for (; i + 3 <= n_query; i += 3) {
            pass(std::integral_constant<int, 3>(), i);
        }
    }
    if constexpr (kMax >= 2) {
        for (; i + 2 <= n_query; i += 2) {
            pass(std::integral_constant<int, 2>(), i);
        }
    }
    for (; i < n_query; ++i) {
        pass(std::integral_constant<int, 1>(), i);
    }
}

struct Buffers {
    HWY_ALIGN float scales[kTileRows * kMaxBlocks];
    HWY_ALIGN float wide[kWideFloats];
};

/// Calls work(Row or F32Row, range, rows, n, first row) tile by tile over the rows at `base`. Where more queries share
/// the rows than one conversion serves, a tile is converted to floats once; the range passed on has that row size.
template <class Row, class Work>
HWY_INLINE void over_tiles(const AttendRange & a, const uint8_t * base, Buffers & buffers, Work && work) {
    const bool wide = a.n_query > kMaxQuery;
    const int32_t n_block = a.head_dim / kBlock;
    const int32_t step = wide ? std::min(kTileRows, kWideFloats / a.head_dim) : kTileRows;
    AttendRange as_floats = a;
    as_floats.row_bytes = sizeof(float) * static_cast<size_t>(a.head_dim);
    for (int32_t t = 0; t < a.n_rows; t += step) {
        const int32_t n = std::min(step, a.n_rows - t);
        const uint8_t * rows = base + static_cast<size_t>(t) * a.row_bytes;
        if constexpr (Row::kScaled) {
            gather_scales<Row>(rows, a.row_bytes, n, n_block, buffers.scales);
        }
        if (wide) {
            convert_rows<Row>(a, rows, n, buffers.scales, buffers.wide);
            work(F32Row(), as_floats, reinterpret_cast<const uint8_t *>(buffers.wide), n, t);
        } else {
            work(Row(), a, rows, n, t);
        }
    }
}

/// What query i of the range contributes: s becomes exp(s - max), zero behind the last row.
HWY_INLINE PartialHead soften(float * s, int32_t n_rows) {
    const F f;
    const size_t lanes = hn::Lanes(f);
    const float max = *std::max_element(s, s + n_rows);
    const size_t padded = (static_cast<size_t>(n_rows) + lanes - 1) / lanes * lanes;
    std::fill(s + n_rows, s + padded, -HUGE_VALF);
    V sum = hn::Zero(f);
    for (size_t r = 0; r < padded; r += lanes) {
        const V x = hn::Exp(f, hn::Sub(hn::LoadU(f, s + r), hn::Set(f, max)));
        hn::StoreU(x, f, s + r);
        sum = hn::Add(sum, x);
    }
    return {max, hn::GetLane(hn::SumOfLanes(f, sum))};
}

/// Rows that kQ queries look at together: their sums stay in registers.
template <class Row, int kQ>
constexpr int kRowsOf = kQ == 1   ? (Row::kScaled ? 4 : 8)
                        : kQ == 2 ? (Row::kScaled ? 2 : 4)
                        : kQ == 3 ? 3
                                  : 2;

template <class Row>
void attend(const AttendRange & a, float * partial, float * weights_out, size_t weights_stride) {
    constexpr int32_t kQueries = 8;  // whose scores are held at a time
    HWY_ALIGN float scores[kQueries * kRangeSlots];
    Buffers buffers;
    const auto d = static_cast<size_t>(a.head_dim);
    const size_t stride = partial_floats(a.head_dim);

    for (int32_t first = 0; first < a.n_query; first += kQueries) {
        const int32_t n_query = std::min(kQueries, a.n_query - first);
        over_tiles<Row>(a, a.k, buffers,
                        [&](auto kind, const AttendRange & range, const uint8_t * rows, int32_t n, int32_t t) HWY_ATTR {
                            using Tile = decltype(kind);
                            constexpr bool kWide = std::is_same_v<Tile, F32Row>;
                            const int32_t n_block = range.head_dim / kBlock;
                            over_queries<kWide ? kMaxWideQuery : kMaxQuery>(n_query, [&](auto k_q, int32_t i) HWY_ATTR {
                                constexpr int kQ = decltype(k_q)::value;
                                constexpr int kR = kRowsOf<Tile, kQ>;
                                const float * q = range.q + static_cast<size_t>(first + i) * d;
                                float * out = scores + static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(t);
                                int32_t r = 0;
                                for (; r + kR <= n; r += kR) {
                                    const uint8_t * row = rows + static_cast<size_t>(r) * range.row_bytes;
                                    if (!kWide && i == 0) {
                                        fetch(row + kAhead, kR * range.row_bytes);
                                    }
                                    score_rows<Tile, kQ, kR>(range, q, row, buffers.scales + r * n_block, out + r);
                                }
                                for (; r < n; ++r) {
                                    score_rows<Tile, kQ, 1>(range, q, rows + static_cast<size_t>(r) * range.row_bytes,
                                                            buffers.scales + r * n_block, out + r);
                                }
                            });
                        });
        for (int32_t i = 0; i < n_query; ++i) {
            float * s = scores + static_cast<size_t>(i) * kRangeSlots;
            float * out = partial + static_cast<size_t>(first + i) * stride;
            const PartialHead head = soften(s, a.n_rows);
            out[0] = head.max;
            out[1] = head.sum;
            std::fill(out + 2, out + stride, 0.0F);
            if (weights_out != nullptr) {
                std::copy_n(s, a.n_rows, weights_out + static_cast<size_t>(first + i) * weights_stride);
            }
        }
        over_tiles<Row>(
            a, a.v, buffers,
            [&](auto kind, const AttendRange & range, const uint8_t * rows, int32_t n, int32_t t) HWY_ATTR {
                using Tile = decltype(kind);
                constexpr bool kWide = std::is_same_v<Tile, F32Row>;
                over_queries<kWide ? kMaxWideQuery : kMaxQuery>(n_query, [&](auto k_q, int32_t i) HWY_ATTR {
                    constexpr int kQ = decltype(k_q)::value;
                    const float * weights = scores + static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(t);
                    float * acc = partial + static_cast<size_t>(first + i) * stride + 2;
                    if constexpr (kWide) {
                        add_values<kQ>(range, rows, n, weights, acc, stride);
                    } else {
                        constexpr int kR = kQ == 1 ? 4 : 2;
                        const int32_t n_block = range.head_dim / kBlock;
                        int32_t r = 0;
                        for (; r + kR <= n; r += kR) {
                            const uint8_t * row = rows + static_cast<size_t>(r) * range.row_bytes;
                            if (i == 0) {
                                fetch(row + kAhead, kR * range.row_bytes);
                            }
                            add_rows<Tile, kQ, kR>(range, row, buffers.scales + r * n_block, weights + r, acc, stride);
                        }
                        for (; r < n; ++r) {
                            add_rows<Tile, kQ, 1>(range, rows + static_cast<size_t>(r) * range.row_bytes,
                                                  buffers.scales + r * n_block, weights + r, acc, stride);
                        }
                    }
                });
            });
    }
}

void attend_dispatch(const AttendRange & range, float * partial, float * weights, size_t weights_stride) {
    switch (range.type) {
        case KvType::f16:
            return attend<F16Row>(range, partial, weights, weights_stride);
        case KvType::q8_0:
            return attend<Q8Row>(range, partial, weights, weights_stride);
        case KvType::q4_0:
            return attend<Q4Row>(range, partial, weights, weights_stride);
    }
}

const char * target_name() {
    return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace kvsieve
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvsieve {
namespace {

HWY_EXPORT(attend_dispatch);
HWY_EXPORT(target_name);

}  // namespace

void attend_range(const AttendRange & range, float * partial, float * weights, size_t weights_stride) noexcept {
    HWY_DYNAMIC_DISPATCH(attend_dispatch)(range, partial, weights, weights_stride);
}

PartialHead merge_ranges(const float * partial, size_t stride, int32_t n_range, int32_t head_dim,
                         float * out) noexcept {
    PartialHead whole{-HUGE_VALF, 0.0F};
    for (int32_t i = 0; i < n_range; ++i) {
        whole.max = std::max(whole.max, partial[static_cast<size_t>(i) * stride]);
    }
    std::fill(out, out + head_dim, 0.0F);
    for (int32_t i = 0; i < n_range; ++i) {
        const float * part = partial + static_cast<size_t>(i) * stride;
        const float weight = std::exp(part[0] - whole.max);
        whole.sum += weight * part[1];
        for (int32_t e = 0; e < head_dim; ++e) {
            out[e] += weight * part[2 + e];
        }
    }
    for (int32_t e = 0; e < head_dim; ++e) {
        out[e] /= whole.sum;
    }
    return whole;
}

void normalise_weights(const float * partial, size_t stride, const PartialHead & whole, int32_t n_rows,
                       float * weights) noexcept {
    for (int32_t first = 0; first < n_rows; first += kRangeSlots, partial += stride) {
        const float factor = std::exp(partial[0] - whole.max) / whole.sum;
        for (int32_t t = first; t < std::min(first + kRangeSlots, n_rows); ++t) {
            weights[t] *= factor;
        }
    }
}

const char * attention_kernel_target() noexcept {
    return HWY_DYNAMIC_DISPATCH(target_name)();
}

}  // namespace kvsieve
#endif
