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
    // A histogram over the range that the keys span (not over fixed bits: scores of a layer often share their leading
    // bits) finds the bucket of the cut; what lies in it is looked at again.
    std::span<const uint64_t> from = keys;
    int64_t below = 0;  // keys that lie below all in `from`
    bool gathered = false;
    for (;;) {
        const auto [low, high] = std::minmax_element(from.begin(), from.end());
        const uint64_t least = *low, range = *high - least;
        if (range == 0) {
            return {.key = least, .n_tied = n_drop - below};
        }
        if (from.size() <= kFewKeys) {
            break;
        }
        const auto width = static_cast<unsigned>(std::bit_width(range));
        const unsigned shift = width > kDigitBits ? width - kDigitBits : 0;
        std::array<uint32_t, kDigits> counts{};
        for (const uint64_t key : from) {
            ++counts[(key - least) >> shift];
        }
        size_t digit = 0;
        while (below + counts[digit] < n_drop) {
            below += counts[digit++];
        }
        const auto in_bucket = [&](uint64_t key) { return (key - least) >> shift == digit; };
        if (gathered) {
            scratch.erase(std::remove_if(scratch.begin(), scratch.end(), [&](uint64_t key) { return !in_bucket(key); }),
                          scratch.end());
        } else {
            scratch.clear();
            std::copy_if(from.begin(), from.end(), std::back_inserter(scratch), in_bucket);
            gathered = true;
        }
        from = scratch;
    }
    if (!gathered) {
        scratch.assign(from.begin(), from.end());
    }
    const auto at = scratch.begin() + static_cast<std::ptrdiff_t>(n_drop - below - 1);
    std::nth_element(scratch.begin(), at, scratch.end());
    const uint64_t key = *at;
    const auto n_less = std::count_if(scratch.begin(), at, [key](uint64_t x) { return x < key; });
    return {.key = key, .n_tied = n_drop - below - n_less};
}

void sort_descending(std::vector<double> & values) {
    std::vector<uint64_t> keys(values.size()), other(values.size());
    std::transform(values.begin(), values.end(), keys.begin(), [](double x) { return ~order_key(x); });
    uint64_t low = ~uint64_t{0}, high = 0;
    for (const uint64_t key : keys) {
        low = std::min(low, key);
        high = std::max(high, key);
    }
    for (unsigned shift = 0; shift < 64 && (values.size() > 1 && ((high - low) >> shift) != 0); shift += kDigitBits) {
        std::array<uint32_t, kDigits> starts{};
        for (const uint64_t key : keys) {
            ++starts[((key - low) >> shift) & (kDigits - 1)];
        }
        std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), uint32_t{0});
        for (const uint64_t key : keys) {
            other[starts[((key - low) >> shift) & (kDigits - 1)]++] = key;
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
