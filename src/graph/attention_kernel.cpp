// SPDX-License-Identifier: MIT
// Two passes over a range: keys to scores, values to the weighted sum, in blocks of 32 elements (the blocks of q8_0 and
// q4_0). Rows are read in the order in which they lie, which is what processors fetch ahead of; each is converted once,
// in registers, for all query heads of the group (up to kMaxQueries), whose sums stay in registers.
#include "graph/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "policy/highway_targets.h"

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

constexpr int32_t kBlock = 32;  // elements

using F = hn::CappedTag<float, kBlock>;
using V = hn::Vec<F>;
constexpr size_t kLanes = hn::MaxLanes(F());
constexpr size_t kPerBlock = kBlock / kLanes;          // vectors
constexpr int kRegisters = kLanes >= 16 ? 32 : 16;     // of the processor, about
constexpr int kMaxQueries = kRegisters == 32 ? 8 : 4;  // that are worked on together
constexpr int kSums = kRegisters == 32 ? 24 : 8;       // that stay in registers
constexpr auto kGroup = static_cast<int32_t>(kLanes);  // rows whose scores are summed together
constexpr int32_t kMaxDim = 1024;
/// Value rows that are walked through once for every few columns where these do not fit in registers all together.
constexpr int32_t kTileRows = 16;
constexpr size_t kLine = 64;  // bytes of a cache line
static_assert(kRangeSlots % kGroup == 0 && kGroup <= kTileRows);

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
#if HWY_TARGET <= HWY_AVX3
        // AVX-512: looked up in one register by the lowest four bits, so those above need not be cleared.
        using Index = decltype(hn::IndicesFromVec(F(), x));
        const V values = hn::Sub(hn::Iota(F(), 0.0F), hn::Set(F(), 8.0F));
        return hn::TableLookupLanes(values, Index{(high ? hn::ShiftRight<4>(x) : x).raw});
#else
        const auto nibble = high ? hn::ShiftRight<4>(x) : hn::And(x, hn::Set(wide, 15));
        return hn::ConvertTo(F(), hn::Sub(nibble, hn::Set(wide, 8)));
#endif
    }
};

/// Rows that cost more arithmetic than their bytes' way from memory are fetched kAhead rows before their turn. Of
/// others the processor fetches more by itself, when they are read in the order in which they lie.
template <class Row, int kQ>
constexpr bool kFetchRows = kQ > 1 || Row::kScaled;
template <class Row>
constexpr size_t kAhead = Row::kScaled ? 24 : 16;
/// One stream of addresses does not take all of the bandwidth: where there is little to compute a range's values are
/// fetched while its keys are read, and are at hand when their turn comes; while they are read the next range's first
/// keys are fetched.
template <int kQ>
constexpr bool kFetchValues = kQ == 1;

/// The half precision number at `bytes`.
HWY_INLINE float half_at(const uint8_t * bytes) {
    const hn::CappedTag<float, 1> one;
    const hn::Rebind<hwy::float16_t, decltype(one)> half;
    return hn::GetLane(hn::PromoteTo(one, hn::LoadU(half, reinterpret_cast<const hwy::float16_t *>(bytes))));
}

/// The scales of n <= kTileRows rows as floats, [n_block][kTileRows], times the rows' weights if there are any.
/// Together they cost a fraction of what they cost one by one.
template <class Row>
HWY_INLINE void load_scales(const uint8_t * rows, size_t row_bytes, int32_t n, int32_t n_block, const float * weights,
                            float * scales) {
    const F f;
    const hn::Rebind<hwy::float16_t, F> half;
    HWY_ALIGN uint16_t stored[kMaxDim / kBlock * kTileRows];  // all of them first: loading what was just stored stalls
    for (int32_t r = 0; r < n; ++r, rows += row_bytes) {
        for (int32_t b = 0; b < n_block; ++b) {
            std::memcpy(stored + b * kTileRows + r, rows + static_cast<size_t>(b) * Row::kBlockBytes, sizeof(uint16_t));
        }
    }
    for (int32_t i = 0; i < n_block * kTileRows; i += static_cast<int32_t>(kLanes)) {
        V scale = hn::PromoteTo(f, hn::Load(half, reinterpret_cast<const hwy::float16_t *>(stored + i)));
        if (weights != nullptr) {
            scale = hn::Mul(scale, hn::LoadU(f, weights + i % kTileRows));
        }
        hn::Store(scale, f, scales + i);
    }
}

/// An element behind the last whole block; f16 rows only, quantised ones have none.
HWY_INLINE float tail_element(const uint8_t * row, int32_t i) {
    return half_at(row + 2 * static_cast<size_t>(i));
}

/// The sums of kLanes vectors, [kLanes][kLanes] -> [kLanes].
HWY_INLINE V sum_each(const float * vectors) {
    const F f;
    V v[kLanes];
    KVSIEVE_UNROLL
    for (size_t i = 0; i < kLanes; ++i) {
        v[i] = hn::Load(f, vectors + i * kLanes);
    }
#if HWY_TARGET != HWY_SCALAR
    KVSIEVE_UNROLL
    for (size_t n = kLanes / 2; n > 0; n /= 2) {
        KVSIEVE_UNROLL
        for (size_t i = 0; i < n; ++i) {  // sums of neighbours, those of the first vector first
            v[i] = hn::Add(hn::ConcatEven(f, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(f, v[2 * i + 1], v[2 * i]));
        }
    }
#endif
    return v[0];
}

/// out[i][r] = q[i] . row r as kLanes partial sums, for kQ queries and kR rows. `out` are kGroup * kLanes floats apart
/// for each query. `ahead`, `values`: as many rows that may be fetched meanwhile. `scales` of the rows' blocks,
/// kTileRows apart.
template <class Row, int kQ, int kR>
HWY_INLINE void dot_rows(const AttendRange & a, const float * q, const uint8_t * rows, const uint8_t * ahead,
                         const uint8_t * values, const float * scales, float * out) {
    const F f;
    const int32_t n_block = a.head_dim / kBlock;
    const auto d = static_cast<size_t>(a.head_dim);
    constexpr size_t kWays = kQ * kR == 1 && !Row::kScaled ? std::min<size_t>(4, kPerBlock) : 1;  // hide latency
    constexpr int32_t kBlocksOfLine = Row::kBlockBytes <= kLine / 2 ? 2 : 1;  // one fetch for so many
    V acc[kQ][kR][kWays];
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            KVSIEVE_UNROLL
            for (size_t w = 0; w < kWays; ++w) {
                acc[i][r][w] = hn::Zero(f);
            }
        }
    }
    for (int32_t b = 0; b < n_block; ++b, q += kBlock, rows += Row::kBlockBytes, ahead += Row::kBlockBytes,
                 values += Row::kBlockBytes, scales += kTileRows) {
        if (b % kBlocksOfLine == 0) {
            KVSIEVE_UNROLL
            for (int r = 0; r < kR; ++r) {
                const size_t row = static_cast<size_t>(r) * a.row_bytes;
                if constexpr (kFetchRows<Row, kQ>) {
                    hwy::Prefetch(ahead + row);
                }
                if constexpr (kFetchValues<kQ>) {
                    hwy::Prefetch(values + row);
                }
            }
        }
        if constexpr (Row::kScaled && kQ <= 2) {  // scale the products' sums
            KVSIEVE_UNROLL
            for (int r = 0; r < kR; ++r) {
                const uint8_t * block = rows + static_cast<size_t>(r) * a.row_bytes;
                V dot[kQ];
                KVSIEVE_UNROLL
                for (int i = 0; i < kQ; ++i) {
                    dot[i] = hn::Zero(f);
                }
                KVSIEVE_UNROLL
                for (size_t e = 0; e < kPerBlock; ++e) {
                    const V x = Row::load(block, e * kLanes);
                    KVSIEVE_UNROLL
                    for (int i = 0; i < kQ; ++i) {
                        const V query = hn::LoadU(f, q + static_cast<size_t>(i) * d + e * kLanes);
                        dot[i] = hn::MulAdd(x, query, dot[i]);
                    }
                }
                const V scale = hn::Set(f, scales[r]);
                KVSIEVE_UNROLL
                for (int i = 0; i < kQ; ++i) {
                    acc[i][r][0] = hn::MulAdd(dot[i], scale, acc[i][r][0]);
                }
            }
        } else {
            V scale[kR];
            if constexpr (Row::kScaled) {
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    scale[r] = hn::Set(f, scales[r]);
                }
            }
            KVSIEVE_UNROLL
            for (size_t e = 0; e < kPerBlock; ++e) {
                V x[kR];
                KVSIEVE_UNROLL
                for (int r = 0; r < kR; ++r) {
                    x[r] = Row::load(rows + static_cast<size_t>(r) * a.row_bytes, e * kLanes);
                    if constexpr (Row::kScaled) {
                        x[r] = hn::Mul(x[r], scale[r]);
                    }
                }
                KVSIEVE_UNROLL
                for (int i = 0; i < kQ; ++i) {
                    const V query = hn::LoadU(f, q + static_cast<size_t>(i) * d + e * kLanes);
                    KVSIEVE_UNROLL
                    for (int r = 0; r < kR; ++r) {
                        acc[i][r][e % kWays] = hn::MulAdd(x[r], query, acc[i][r][e % kWays]);
                    }
                }
            }
        }
    }
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            KVSIEVE_UNROLL
            for (size_t w = 1; w < kWays; ++w) {
                acc[i][r][0] = hn::Add(acc[i][r][0], acc[i][r][w]);
            }
            hn::Store(acc[i][r][0], f, out + (static_cast<size_t>(i) * kGroup + static_cast<size_t>(r)) * kLanes);
        }
    }
}

/// scores[i][r] = scale * q[i] . k[r] for kQ queries and all rows; scores are kRangeSlots apart.
template <class Row, int kQ>
void score(const AttendRange & a, const float * queries, float * scores) {
    const F f;
    constexpr int kR = kQ == 1 ? 1 : kQ <= kSums / 4 ? 4 : kQ <= kSums / 2 ? 2 : 1;
    HWY_ALIGN float sums[kQ * kGroup * kLanes];
    std::fill(std::begin(sums), std::end(sums), 0.0F);
    HWY_ALIGN float scales[kMaxDim / kBlock * kTileRows];
    HWY_ALIGN float q[kQ * kMaxDim];  // scaled, and no vector across two cache lines
    for (int i = 0; i < kQ * a.head_dim; ++i) {
        q[i] = a.scale * queries[i];
    }
    if constexpr (kFetchRows<Row, kQ>) {
        const size_t n_bytes = std::min<size_t>(kAhead<Row>, static_cast<size_t>(a.n_rows)) * a.row_bytes;
        for (size_t at = 0; at < n_bytes; at += kLine) {
            hwy::Prefetch(a.k + at);
        }
    }
    // what is needed next: rows further behind, and behind the last one the first values
    const auto ahead_of = [&](int32_t row) {
        const int32_t next = row + static_cast<int32_t>(kAhead<Row>);
        return next < a.n_rows ? a.k + static_cast<size_t>(next) * a.row_bytes
                               : a.v + static_cast<size_t>(next - a.n_rows) * a.row_bytes;
    };
    for (int32_t first = 0; first < a.n_rows; first += kGroup) {
        const int32_t n = std::min(kGroup, a.n_rows - first);
        const uint8_t * rows = a.k + static_cast<size_t>(first) * a.row_bytes;
        if constexpr (Row::kScaled) {
            load_scales<Row>(rows, a.row_bytes, n, a.head_dim / kBlock, nullptr, scales);
        }
        const auto dot = [&](auto n_together, int32_t r) {
            dot_rows<Row, kQ, decltype(n_together)::value>(
                a, q, rows + static_cast<size_t>(r) * a.row_bytes, ahead_of(first + r),
                a.v + static_cast<size_t>(first + r) * a.row_bytes, scales + r, sums + static_cast<size_t>(r) * kLanes);
        };
        int32_t r = 0;
        for (; r + kR <= n; r += kR) {
            dot(std::integral_constant<int, kR>(), r);
        }
        if constexpr (kR > 1) {
            for (; r < n; ++r) {
                dot(std::integral_constant<int, 1>(), r);
            }
        }
        for (int i = 0; i < kQ; ++i) {
            float * out = scores + static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(first);
            hn::Store(sum_each(sums + static_cast<size_t>(i) * kGroup * kLanes), f, out);
            for (int32_t e = a.head_dim / kBlock * kBlock; e < a.head_dim; ++e) {
                for (int32_t t = 0; t < n; ++t) {
                    out[t] += q[i * a.head_dim + e] * tail_element(rows + static_cast<size_t>(t) * a.row_bytes, e);
                }
            }
        }
    }
}

/// acc[i] += sum over n rows of weights[i][r] v[r], in the kV vectors from vector kFirst of `block` on; kV are a part
/// of a block or several whole ones. acc are `stride` floats apart; `scales` those of the rows' blocks, kTileRows
/// apart. `next`: a cache line for each row that may be fetched meanwhile.
template <class Row, int kQ, size_t kV, size_t kFirst>
HWY_INLINE void add_columns(const AttendRange & a, const uint8_t * block, const uint8_t * next, int32_t n,
                            const float * weights, const float * scales, float * acc, size_t stride) {
    const F f;
    constexpr size_t kPart = std::min(kV, kPerBlock);
    V sum[kQ][kV];
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (size_t j = 0; j < kV; ++j) {
            sum[i][j] = hn::LoadU(f, acc + static_cast<size_t>(i) * stride + j * kLanes);
        }
    }
    for (int32_t r = 0; r < n; ++r, block += a.row_bytes) {
        if constexpr (kFetchValues<kQ>) {
            hwy::Prefetch(next + static_cast<size_t>(r) * kLine);
        } else if constexpr (kFetchRows<Row, kQ>) {
            for (size_t at = 0; at < kV / kPart * Row::kBlockBytes; at += kLine) {
                hwy::Prefetch(block + kAhead<Row> * a.row_bytes + at);
            }
        }
        V w[kQ];
        KVSIEVE_UNROLL
        for (int i = 0; i < kQ; ++i) {
            w[i] = hn::Set(f, weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)]);
        }
        KVSIEVE_UNROLL
        for (size_t b = 0; b < kV / kPart; ++b) {
            const uint8_t * from = block + b * Row::kBlockBytes;
            V scale;
            if constexpr (Row::kScaled) {
                scale = hn::Set(f, scales[b * kTileRows + static_cast<size_t>(r)]);
            }
            KVSIEVE_UNROLL
            for (size_t e = 0; e < kPart; ++e) {
                V x = Row::load(from, (kFirst + e) * kLanes);
                if constexpr (Row::kScaled && kQ > 1) {
                    x = hn::Mul(x, scale);
                }
                KVSIEVE_UNROLL
                for (int i = 0; i < kQ; ++i) {
                    V & to = sum[i][b * kPart + e];
                    to = hn::MulAdd(x, Row::kScaled && kQ == 1 ? scale : w[i], to);
                }
            }
        }
    }
    KVSIEVE_UNROLL
    for (int i = 0; i < kQ; ++i) {
        KVSIEVE_UNROLL
        for (size_t j = 0; j < kV; ++j) {
            hn::StoreU(sum[i][j], f, acc + static_cast<size_t>(i) * stride + j * kLanes);
        }
    }
}

template <class Row, int kQ, size_t kV, size_t kFirst = 0>
HWY_INLINE void add_block_parts(const AttendRange & a, const uint8_t * block, const uint8_t * next, int32_t n,
                                const float * weights, const float * scales, float * acc, size_t stride) {
    add_columns<Row, kQ, kV, kFirst>(a, block, next, n, weights, scales, acc + kFirst * kLanes, stride);
    if constexpr (kFirst + kV < kPerBlock) {
        add_block_parts<Row, kQ, kV, kFirst + kV>(a, block, next, n, weights, scales, acc, stride);
    }
}

/// acc[i] = sum over all rows of weights[i][r] v[r], for kQ queries; acc are `stride` floats apart.
template <class Row, int kQ>
void add_values(const AttendRange & a, const float * weights, float * acc, size_t stride) {
    constexpr size_t kFit = kSums / kQ;
    constexpr size_t kV = kFit >= 8 ? 8 : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
    constexpr int32_t kBlocks = kV > kPerBlock ? kV / kPerBlock : 1;
    const int32_t n_block = a.head_dim / kBlock;
    for (int i = 0; i < kQ; ++i) {
        std::fill_n(acc + static_cast<size_t>(i) * stride, a.head_dim, 0.0F);
    }
    const int32_t step = kQ == 1 && !Row::kScaled ? a.n_rows : kTileRows;
    HWY_ALIGN float scales[kMaxDim / kBlock * kTileRows];
    for (int32_t t = 0; t < a.n_rows; t += step, weights += step) {
        const int32_t n = std::min(step, a.n_rows - t);
        const uint8_t * rows = a.v + static_cast<size_t>(t) * a.row_bytes;
        const uint8_t * next = a.next != nullptr ? a.next + static_cast<size_t>(t) * kLine : rows;
        if constexpr (Row::kScaled) {
            load_scales<Row>(rows, a.row_bytes, n, n_block, kQ == 1 ? weights : nullptr, scales);
        }
        int32_t b = 0;
        for (; b + kBlocks <= n_block; b += kBlocks) {
            add_block_parts<Row, kQ, kV>(a, rows + static_cast<size_t>(b) * Row::kBlockBytes, next, n, weights,
                                         scales + b * kTileRows, acc + b * kBlock, stride);
        }
        if constexpr (kBlocks > 1) {
            for (; b < n_block; ++b) {
                add_block_parts<Row, kQ, kPerBlock>(a, rows + static_cast<size_t>(b) * Row::kBlockBytes, next, n,
                                                    weights, scales + b * kTileRows, acc + b * kBlock, stride);
            }
        }
    }
    weights -= (a.n_rows + step - 1) / step * step;
    for (int32_t e = n_block * kBlock; e < a.head_dim; ++e) {
        for (int i = 0; i < kQ; ++i) {
            float & sum = acc[static_cast<size_t>(i) * stride + static_cast<size_t>(e)];
            for (int32_t r = 0; r < a.n_rows; ++r) {
                sum += weights[static_cast<size_t>(i) * kRangeSlots + static_cast<size_t>(r)] *
                       tail_element(a.v + static_cast<size_t>(r) * a.row_bytes, e);
            }
        }
    }
}

/// What a query of the range contributes: s becomes exp(s - max), zero behind the last row.
HWY_INLINE PartialHead soften(float * s, int32_t n_rows) {
    const F f;
    const auto n = static_cast<size_t>(n_rows);
    const size_t padded = (n + kLanes - 1) / kLanes * kLanes;
    std::fill(s + n, s + padded, -HUGE_VALF);
    V max = hn::Load(f, s);
    for (size_t r = kLanes; r < padded; r += kLanes) {
        max = hn::Max(max, hn::Load(f, s + r));
    }
    max = hn::MaxOfLanes(f, max);
    V sum = hn::Zero(f);
    for (size_t r = 0; r < padded; r += kLanes) {
        const V x = hn::Exp(f, hn::Sub(hn::Load(f, s + r), max));
        hn::Store(x, f, s + r);
        sum = hn::Add(sum, x);
    }
    return {hn::GetLane(max), hn::GetLane(hn::SumOfLanes(f, sum))};
}

template <class Row, int kQ>
void attend_together(const AttendRange & a, const float * q, float * partial, float * weights_out,
                     size_t weights_stride) {
    HWY_ALIGN float scores[kQ * kRangeSlots];
    const size_t stride = partial_floats(a.head_dim);
    score<Row, kQ>(a, q, scores);
    for (int i = 0; i < kQ; ++i) {
        float * s = scores + static_cast<size_t>(i) * kRangeSlots;
        const PartialHead head = soften(s, a.n_rows);
        partial[static_cast<size_t>(i) * stride] = head.max;
        partial[static_cast<size_t>(i) * stride + 1] = head.sum;
        if (weights_out != nullptr) {
            std::copy_n(s, a.n_rows, weights_out + static_cast<size_t>(i) * weights_stride);
        }
    }
    add_values<Row, kQ>(a, scores, partial + 2, stride);
}

/// The queries of the range, as many together as leave their sums in registers.
template <class Row, int kQ = kMaxQueries>
void attend(const AttendRange & a, int32_t first, float * partial, float * weights, size_t weights_stride) {
    for (; first + kQ <= a.n_query; first += kQ) {
        const auto i = static_cast<size_t>(first);
        attend_together<Row, kQ>(a, a.q + i * static_cast<size_t>(a.head_dim), partial + i * partial_floats(a.head_dim),
                                 weights == nullptr ? nullptr : weights + i * weights_stride, weights_stride);
    }
    if constexpr (kQ > 1) {
        attend<Row, kQ - 1>(a, first, partial, weights, weights_stride);
    }
}

void attend_dispatch(const AttendRange & range, float * partial, float * weights, size_t weights_stride) {
    switch (range.type) {
        case KvType::f16:
            return attend<F16Row>(range, 0, partial, weights, weights_stride);
        case KvType::q8_0:
            return attend<Q8Row>(range, 0, partial, weights, weights_stride);
        case KvType::q4_0:
            return attend<Q4Row>(range, 0, partial, weights, weights_stride);
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
