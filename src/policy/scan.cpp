// SPDX-License-Identifier: MIT
#include "policy/scan.h"

#include <bit>

#include "policy/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "policy/scan.cpp"  // this file, compiled once per instruction set
#include <hwy/foreach_target.h>
// clang-format off: highway.h must come behind foreach_target.h
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvsieve {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<double>;
constexpr size_t kWord = 64;  // values that a word of bits stands for
static_assert(hn::MaxLanes(D()) <= 8 && kWord % hn::MaxLanes(D()) == 0);

/// Bit i: lane i. Bits instead of hn::CompressStore, whose table GCC copies at every use (Highway 1.0).
HWY_INLINE uint64_t bits_of(hn::Mask<D> mask) {
    uint8_t bits[8] = {};
    hn::StoreMaskBits(D(), mask, bits);
    return bits[0];
}

/// Writes what `value` makes of the index of every set bit; how many.
template <typename T, typename Value>
HWY_INLINE size_t write_set(uint64_t word, T * out, const Value & value) {
    const auto n = static_cast<size_t>(std::popcount(word));
    for (; word != 0; word &= word - 1) {
        *out++ = value(static_cast<size_t>(std::countr_zero(word)));
    }
    return n;
}

size_t between(const double * values, size_t n, double low, double high, double * out, int64_t & n_below) {
    const D d;
    const auto from = hn::Set(d, low), to = hn::Set(d, high);
    size_t at = 0, below = 0, k = 0;
    for (; k + kWord <= n; k += kWord) {
        uint64_t less = 0, inside = 0;
        for (size_t i = 0; i < kWord; i += hn::Lanes(d)) {
            const auto x = hn::LoadU(d, values + k + i);
            less |= bits_of(hn::Lt(x, from)) << i;
            inside |= bits_of(hn::And(hn::Ge(x, from), hn::Le(x, to))) << i;
        }
        below += static_cast<size_t>(std::popcount(less));
        at += write_set(inside, out + at, [&](size_t i) { return values[k + i]; });
    }
    for (; k < n; ++k) {
        out[at] = values[k];  // overwritten by the next, if it does not belong there
        at += values[k] >= low && values[k] <= high ? 1 : 0;
        below += values[k] < low ? 1 : 0;
    }
    n_below += static_cast<int64_t>(below);
    return at;
}

size_t above(const double * values, size_t n, double limit, int32_t first, int32_t * out) {
    const D d;
    const auto most = hn::Set(d, limit);
    size_t at = 0, k = 0;
    for (; k + kWord <= n; k += kWord) {
        uint64_t more = 0;
        for (size_t i = 0; i < kWord; i += hn::Lanes(d)) {
            more |= bits_of(hn::Gt(hn::LoadU(d, values + k + i), most)) << i;
        }
        at += write_set(more, out + at, [&](size_t i) { return first + static_cast<int32_t>(k + i); });
    }
    for (; k < n; ++k) {
        out[at] = first + static_cast<int32_t>(k);
        at += values[k] > limit ? 1 : 0;
    }
    return at;
}

}  // namespace HWY_NAMESPACE
}  // namespace kvsieve
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvsieve {
namespace {

HWY_EXPORT(between);
HWY_EXPORT(above);

}  // namespace

size_t scan_between(const double * values, size_t n, double low, double high, double * out, int64_t & n_below) {
    return HWY_DYNAMIC_DISPATCH(between)(values, n, low, high, out, n_below);
}

size_t scan_above(const double * values, size_t n, double limit, int32_t first, int32_t * out) {
    return HWY_DYNAMIC_DISPATCH(above)(values, n, limit, first, out);
}

}  // namespace kvsieve
#endif
