// SPDX-License-Identifier: MIT
#include "policy/scan.h"

// Vectors of unknown length have no upper bound for kScanSlack; such processors have NEON too.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
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
static_assert(hn::MaxLanes(D()) <= kScanSlack);

size_t between(const double * values, size_t n, double low, double high, double * out, int64_t & n_below) {
    const D d;
    const size_t n_lane = hn::Lanes(d);
    const auto from = hn::Set(d, low), to = hn::Set(d, high);
    size_t at = 0, below = 0, k = 0;
    for (; k + n_lane <= n; k += n_lane) {
        const auto x = hn::LoadU(d, values + k);
        below += hn::CountTrue(d, hn::Lt(x, from));
        at += hn::CompressStore(x, hn::And(hn::Ge(x, from), hn::Le(x, to)), d, out + at);
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
    const hn::RebindToUnsigned<D> index;
    const hn::Rebind<uint32_t, D> place;
    const size_t n_lane = hn::Lanes(d);
    const auto most = hn::Set(d, limit);
    const auto step = hn::Set(index, n_lane);
    auto places = hn::Iota(index, static_cast<uint64_t>(first));
    size_t at = 0, k = 0;
    for (; k + n_lane <= n; k += n_lane) {
        const auto stays = hn::Gt(hn::LoadU(d, values + k), most);
        const auto kept = hn::Compress(places, hn::RebindMask(index, stays));
        hn::StoreU(hn::TruncateTo(place, kept), place, reinterpret_cast<uint32_t *>(out) + at);
        at += hn::CountTrue(d, stays);
        places = hn::Add(places, step);
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
