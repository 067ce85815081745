// SPDX-License-Identifier: MIT
#include "policy/order.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace kvsieve {
namespace {

constexpr unsigned kDigitBits = 11;  // 2048 counters stay in the first level of cache
constexpr size_t kDigits = size_t{1} << kDigitBits;
constexpr size_t kFewKeys = 256;  // below this a histogram costs more than it saves

}  // namespace

Cut find_cut(std::span<const uint64_t> keys, int64_t n_drop, std::vector<uint64_t> & scratch) {
    // A histogram of the bits below those that all keys share finds the bucket of the cut; what lies in it is looked at
    // again. Loops are written without branches: they run over every score of every head.
    std::span<const uint64_t> from = keys;
    int64_t below = 0;  // keys that lie below all in `from`
    for (;;) {
        uint64_t differing = 0;
        for (const uint64_t key : from) {
            differing |= key ^ from[0];
        }
        if (differing == 0) {
            return {.key = from[0], .n_tied = n_drop - below};
        }
        if (from.size() <= kFewKeys) {
            break;
        }
        const auto width = static_cast<unsigned>(std::bit_width(differing));
        const unsigned shift = width > kDigitBits ? width - kDigitBits : 0;
        const auto digit_of = [shift](uint64_t key) { return (key >> shift) & (kDigits - 1); };
        std::array<uint32_t, kDigits> counts{};
        for (const uint64_t key : from) {
            ++counts[digit_of(key)];
        }
        size_t digit = 0;
        while (below + counts[digit] < n_drop) {
            below += counts[digit++];
        }
        // The gathered keys never stand behind those still to be read, so `from` may be `scratch` itself.
        if (scratch.size() < from.size()) {
            scratch.resize(from.size());
        }
        size_t n = 0;
        for (const uint64_t key : from) {
            scratch[n] = key;
            n += digit_of(key) == digit ? 1 : 0;
        }
        from = std::span<const uint64_t>(scratch).first(n);
    }
    if (from.data() == keys.data()) {
        scratch.assign(from.begin(), from.end());
    }
    const auto end = scratch.begin() + static_cast<std::ptrdiff_t>(from.size());
    const auto at = scratch.begin() + static_cast<std::ptrdiff_t>(n_drop - below - 1);
    std::nth_element(scratch.begin(), at, end);
    const uint64_t key = *at;
    const auto n_less = std::count_if(scratch.begin(), at, [key](uint64_t x) { return x < key; });
    return {.key = key, .n_tied = n_drop - below - n_less};
}

void sort_descending(std::vector<double> & values) {
    std::vector<uint64_t> keys(values.size()), other(values.size());
    uint64_t differing = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        keys[i] = ~order_key(values[i]);
        differing |= keys[i] ^ keys[0];
    }
    for (unsigned shift = 0; shift < 64 && (differing >> shift) != 0; shift += kDigitBits) {
        std::array<uint32_t, kDigits> starts{};
        for (const uint64_t key : keys) {
            ++starts[(key >> shift) & (kDigits - 1)];
        }
        std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), uint32_t{0});
        for (const uint64_t key : keys) {
            other[starts[(key >> shift) & (kDigits - 1)]++] = key;
        }
        keys.swap(other);
    }
    std::transform(keys.begin(), keys.end(), values.begin(), [](uint64_t key) { return from_order_key(~key); });
}

std::vector<int32_t> stable_order(std::span<const double> values) {
    std::vector<int32_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return values[static_cast<size_t>(a)] < values[static_cast<size_t>(b)];
    });
    return order;
}

}  // namespace kvsieve
