// SPDX-License-Identifier: MIT
// Two matrix products around a softmax, all with the queries of the block in the lanes: scores [rows][queries] are kept
// whole (so columns can be summed after the softmax) and stay in the processor's cache. Each lane adds up in the order
// of the rows, whatever its neighbours are.
#include "graph/prefill_kernel.h"

#include <algorithm>
#include <cmath>

#include "policy/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "graph/prefill_kernel.cpp"  // this file, compiled once per instruction set
#include <hwy/foreach_target.h>
// clang-format off: highway.h must come behind foreach_target.h
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvsieve {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using V = hn::Vec<F>;
constexpr size_t kLanes = hn::MaxLanes(F());
constexpr size_t kVectors = kLanes >= 16 || HWY_ARCH_ARM_A64 ? 4 : 2;  // of queries, of the 32 or 16 registers
constexpr int kRows = 6;                                               // that are multiplied with them together
constexpr size_t kStride = kQueryBlock;
constexpr size_t kColumns = kVectors * kLanes;  // queries that are worked on together
constexpr int32_t kTile = kQueryBlock;          // rows that are converted together
static_assert(kStride % kColumns == 0);

/// What attend_block() works in; the floats of each part are a multiple of 16.
struct Work {
    float * queries;  // [d][kStride], scaled
    float * out;      // [d][kStride]
    float * rows;     // [kTile][d]
    float * max;      // [kStride]
    float * sum;      // [kStride], of the exponentials
    float * scores;   // [n_rows][kStride]
};

/// c[r] (+)= sum over i < n of a[r * row_step + i * step] * b[i], for kR rows of kColumns columns.
template <int kR, bool kAdd>
HWY_INLINE void multiply_rows(const float * a, size_t row_step, size_t step, int32_t n, const float * b, float * c) {
    const F f;
    V acc[kR][kVectors];
    KVSIEVE_UNROLL
    for (int r = 0; r < kR; ++r) {
        KVSIEVE_UNROLL
        for (size_t j = 0; j < kVectors; ++j) {
            acc[r][j] = kAdd ? hn::Load(f, c + static_cast<size_t>(r) * kStride + j * kLanes) : hn::Zero(f);
        }
    }
    for (int32_t i = 0; i < n; ++i, a += step, b += kStride) {
        V x[kVectors];
        KVSIEVE_UNROLL
        for (size_t j = 0; j < kVectors; ++j) {
            x[j] = hn::Load(f, b + j * kLanes);
        }
        KVSIEVE_UNROLL
        for (int r = 0; r < kR; ++r) {
            const V weight = hn::Set(f, a[static_cast<size_t>(r) * row_step]);
            KVSIEVE_UNROLL
            for (size_t j = 0; j < kVectors; ++j) {
                acc[r][j] = hn::MulAdd(weight, x[j], acc[r][j]);
            }
        }
    }
    KVSIEVE_UNROLL
    for (int r = 0; r < kR; ++r) {
        KVSIEVE_UNROLL
        for (size_t j = 0; j < kVectors; ++j) {
            hn::Store(acc[r][j], f, c + static_cast<size_t>(r) * kStride + j * kLanes);
        }
    }
}

/// The same for n_row rows and the first `columns` columns.
template <bool kAdd, int kR = kRows>
HWY_INLINE void multiply(const float * a, size_t row_step, size_t step, int32_t n_row, int32_t n, const float * b,
                         float * c, size_t columns) {
    int32_t r = 0;
    for (; r + kR <= n_row; r += kR) {
        for (size_t j = 0; j < columns; j += kColumns) {
            multiply_rows<kR, kAdd>(a + static_cast<size_t>(r) * row_step, row_step, step, n, b + j,
                                    c + static_cast<size_t>(r) * kStride + j);
        }
    }
    if constexpr (kR > 1) {
        if (r < n_row) {
            multiply<kAdd, kR / 2>(a + static_cast<size_t>(r) * row_step, row_step, step, n_row - r, n, b,
                                   c + static_cast<size_t>(r) * kStride, columns);
        }
    }
}

/// n half precision numbers.
HWY_INLINE void to_float(const uint16_t * from, float * to, size_t n) {
    const F f;
    const hn::Rebind<hwy::float16_t, F> half;
    const auto * x = reinterpret_cast<const hwy::float16_t *>(from);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        hn::StoreU(hn::PromoteTo(f, hn::LoadU(half, x + i)), f, to + i);
    }
    const hn::CappedTag<float, 1> one;
    const hn::Rebind<hwy::float16_t, decltype(one)> half_one;
    for (; i < n; ++i) {
        hn::StoreU(hn::PromoteTo(one, hn::LoadU(half_one, x + i)), one, to + i);
    }
}

/// scores = queries . keys, masked; max of each query.
HWY_INLINE void score(const QueryBlock & a, const Work & w, size_t columns) {
    const F f;
    const auto d = static_cast<size_t>(a.head_dim);
    std::fill_n(w.max, columns, -HUGE_VALF);
    for (int32_t t = 0; t < a.n_rows; t += kTile) {
        const int32_t n = std::min(kTile, a.n_rows - t);
        to_float(a.k + static_cast<size_t>(t) * d, w.rows, static_cast<size_t>(n) * d);
        float * scores = w.scores + static_cast<size_t>(t) * kStride;
        multiply<false>(w.rows, d, 1, n, a.head_dim, w.queries, scores, columns);
        for (int32_t row = std::max(t, a.first + 1); row < t + n; ++row) {
            const int32_t n_before = std::min(row - a.first, static_cast<int32_t>(columns));
            std::fill_n(w.scores + static_cast<size_t>(row) * kStride, n_before, -HUGE_VALF);
        }
        for (size_t j = 0; j < columns; j += kLanes) {
            V max = hn::Load(f, w.max + j);
            for (int32_t r = 0; r < n; ++r) {
                max = hn::Max(max, hn::Load(f, scores + static_cast<size_t>(r) * kStride + j));
            }
            hn::Store(max, f, w.max + j);
        }
    }
}

/// scores become exp(s - max), `sum` their sums; out = values weighted with them.
HWY_INLINE void add_values(const QueryBlock & a, const Work & w, size_t columns) {
    const F f;
    const auto d = static_cast<size_t>(a.head_dim);
    std::fill_n(w.sum, columns, 0.0F);
    std::fill_n(w.out, d * kStride, 0.0F);
    for (int32_t t = 0; t < a.n_rows; t += kTile) {
        const int32_t n = std::min(kTile, a.n_rows - t);
        float * scores = w.scores + static_cast<size_t>(t) * kStride;
        for (size_t j = 0; j < columns; j += kLanes) {
            const V max = hn::Load(f, w.max + j);
            V sum = hn::Load(f, w.sum + j);
            for (int32_t r = 0; r < n; ++r) {
                float * s = scores + static_cast<size_t>(r) * kStride + j;
                const V x = hn::Exp(f, hn::Sub(hn::Load(f, s), max));
                hn::Store(x, f, s);
                sum = hn::Add(sum, x);
            }
            hn::Store(sum, f, w.sum + j);
        }
        if (a.v != nullptr) {
            to_float(a.v + static_cast<size_t>(t) * d, w.rows, static_cast<size_t>(n) * d);
            multiply<true>(w.rows, 1, d, a.head_dim, n, scores, w.out, columns);
        }
    }
}

/// sums[row] += sum over i of weight[i] score[row][i], or of its square.
template <bool kSquare>
HWY_INLINE void sum_columns(const Work & w, const float * weight, int32_t n_rows, size_t columns, float * sums) {
    const F f;
    for (int32_t row = 0; row < n_rows; ++row) {
        const float * s = w.scores + static_cast<size_t>(row) * kStride;
        V sum = hn::Zero(f);
        for (size_t j = 0; j < columns; j += kLanes) {
            const V x = hn::Load(f, s + j);
            sum = hn::MulAdd(kSquare ? hn::Mul(x, x) : x, hn::Load(f, weight + j), sum);
        }
        sums[row] += hn::GetLane(hn::SumOfLanes(f, sum));
    }
}

void attend_queries(const QueryBlock & a, float * work) {
    const auto d = static_cast<size_t>(a.head_dim), n_query = static_cast<size_t>(a.n_query);
    const size_t columns = (n_query + kColumns - 1) / kColumns * kColumns;
    Work w{};
    w.queries = work;
    w.out = w.queries + d * kStride;
    w.rows = w.out + d * kStride;
    w.max = w.rows + d * kTile;
    w.sum = w.max + kStride;
    w.scores = w.sum + kStride;
    for (size_t e = 0; e < d; ++e) {
        float * to = w.queries + e * kStride;
        for (size_t i = 0; i < n_query; ++i) {
            to[i] = a.scale * a.q[i * a.q_stride + e];
        }
        std::fill(to + n_query, to + columns, 0.0F);
    }
    score(a, w, columns);
    add_values(a, w, columns);
    if (a.v != nullptr) {
        for (size_t i = 0; i < n_query; ++i) {
            const float share = 1.0F / w.sum[i];
            for (size_t e = 0; e < d; ++e) {
                a.out[i * a.out_stride + e] = share * w.out[e * kStride + i];
            }
        }
    }
    float * weight = w.max;  // the maxima are not needed any more; columns without a query have no weight
    std::fill(weight + n_query, weight + columns, 0.0F);
    if (a.sums != nullptr) {
        for (size_t i = 0; i < n_query; ++i) {
            weight[i] = (a.sum_weights == nullptr ? 1.0F : a.sum_weights[i]) / w.sum[i];
        }
        sum_columns<false>(w, weight, a.n_rows, columns, a.sums);
    }
    if (a.squares != nullptr) {
        for (size_t i = 0; i < n_query; ++i) {
            weight[i] = (a.square_weights == nullptr ? 1.0F : a.square_weights[i]) / (w.sum[i] * w.sum[i]);
        }
        sum_columns<true>(w, weight, a.n_rows, columns, a.squares);
    }
}

const char * prefill_target_name() {
    return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace kvsieve
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvsieve {
namespace {

HWY_EXPORT(attend_queries);
HWY_EXPORT(prefill_target_name);

}  // namespace

size_t query_block_floats(int32_t head_dim, int32_t n_rows) noexcept {
    const size_t per_column = 3 * static_cast<size_t>(head_dim) + 2 + static_cast<size_t>(n_rows);
    return per_column * kQueryBlock;  // Work
}

void attend_block(const QueryBlock & block, float * work) noexcept {
    HWY_DYNAMIC_DISPATCH(attend_queries)(block, work);
}

const char * prefill_kernel_target() noexcept {
    return HWY_DYNAMIC_DISPATCH(prefill_target_name)();
}

}  // namespace kvsieve
#endif
