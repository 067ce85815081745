// SPDX-License-Identifier: MIT
#include "policy/order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>

#include "policy/scan.h"

namespace kvsieve {
namespace {

constexpr unsigned kDigitBits = 11;  // 2048 counters stay in the first level of cache
constexpr size_t kDigits = size_t{1} << kDigitBits;

/// A key whose unsigned order is the order of finite doubles; both zeros get the same key.
uint64_t order_key(double x) {
    const auto bits = std::bit_cast<uint64_t>(x + 0.0);  // -0.0 + 0.0 is 0.0
    const uint64_t sign = bits >> 63U;
    return bits ^ ((uint64_t{0} - sign) | (uint64_t{1} << 63U));
}

double from_order_key(uint64_t key) {
    const uint64_t sign = (key >> 63U) ^ 1U;
    return std::bit_cast<double>(key ^ ((uint64_t{0} - sign) | (uint64_t{1} << 63U)));
}

/// The highest bits of keys among those in which they differ.
struct Digit {
    unsigned shift;
    explicit Digit(uint64_t differing) {
        const auto width = static_cast<unsigned>(std::bit_width(differing));
        shift = width > kDigitBits ? width - kDigitBits : 0;
    }
    [[nodiscard]] size_t operator()(uint64_t key) const { return (key >> shift) & (kDigits - 1); }
};

using Counts = std::array<uint32_t, kDigits>;

void count_digits(std::span<const uint64_t> keys, Digit digit, Counts & counts) {
    counts.fill(0);
    for (const uint64_t key : keys) {
        ++counts[digit(key)];
    }
}

uint64_t differing_bits(std::span<const uint64_t> keys) {
    uint64_t differing = 0;
    for (const uint64_t key : keys) {
        differing |= key ^ keys[0];
    }
    return differing;
}

struct KeyCut {
    uint64_t key = 0;
    int64_t n_tied = 0;
};

/// The cut below which `n_drop` of the keys lie. `few` is overwritten.
KeyCut cut_keys(std::span<const uint64_t> keys, int64_t n_drop, std::vector<uint64_t> & few) {
    constexpr size_t kFewKeys = 128;  // below this a histogram costs more than it saves
    if (few.size() < keys.size()) {
        few.resize(keys.size());
    }
    std::span<const uint64_t> from = keys;
    int64_t below = 0;  // keys that lie below all in `from`
    uint64_t differing = differing_bits(from);
    Counts counts;
    while (differing != 0 && from.size() > kFewKeys) {
        const Digit digit(differing);
        count_digits(from, digit, counts);
        size_t cut = 0;
        while (below + counts[cut] < n_drop) {
            below += counts[cut++];
        }
        // The gathered keys never stand behind those still to be read, so `from` may be `few` itself.
        size_t n = 0;
        for (const uint64_t key : from) {
            few[n] = key;
            n += digit(key) == cut ? 1 : 0;
        }
        from = std::span<const uint64_t>(few).first(n);
        differing = differing_bits(from);
    }
    if (differing == 0) {
        return {.key = from[0], .n_tied = n_drop - below};
    }
    std::copy(from.begin(), from.end(), few.begin());
    const auto end = few.begin() + static_cast<std::ptrdiff_t>(from.size());
    const auto at = few.begin() + static_cast<std::ptrdiff_t>(n_drop - below - 1);
    std::nth_element(few.begin(), at, end);
    const uint64_t key = *at;
    const auto n_less = std::count_if(few.begin(), at, [key](uint64_t x) { return x < key; });
    return {.key = key, .n_tied = n_drop - below - n_less};
}

/// Ascending, in place; `other` is as long and is overwritten.
void sort_keys(std::span<uint64_t> keys, std::span<uint64_t> other) {
    constexpr size_t kComparing = 64;  // below this a comparison sort is faster
    if (keys.size() <= kComparing) {
        std::sort(keys.begin(), keys.end());
        return;
    }
    const uint64_t differing = differing_bits(keys);
    if (differing == 0) {
        return;
    }
    const Digit digit(differing);
    Counts starts;
    count_digits(keys, digit, starts);
    std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), uint32_t{0});
    Counts ends = starts;
    for (const uint64_t key : keys) {
        other[ends[digit(key)]++] = key;
    }
    std::copy(other.begin(), other.end(), keys.begin());
    for (size_t d = 0; digit.shift > 0 && d < kDigits; ++d) {
        if (const size_t n = ends[d] - starts[d]; n > 1) {
            sort_keys(keys.subspan(starts[d], n), other.subspan(starts[d], n));
        }
    }
}

/// What a search looks at closely: the values in [low, high].
struct Bracket {
    double low = -HUGE_VAL, high = HUGE_VAL;
};

/// Arrays of equal size in which a cut is searched, as one.
struct Arrays {
    std::span<const Values> values;
    std::span<const Cut> ceilings;  ///< of each array, or empty; what stands above takes no part
    int64_t n_each;                 ///< values of each that take part
};

/// A bracket that very likely holds the n_drop-th lowest value, from a sample that no regular pattern can deceive.
Bracket guess_bracket(const Arrays & arrays, int64_t n_drop, CutScratch & scratch) {
    const auto n_array = static_cast<int64_t>(arrays.values.size()), n_all = n_array * arrays.n_each;
    if (n_all < 4096) {
        return {};
    }
    const int64_t n_sample = std::clamp<int64_t>(n_all / 32, 512, 4096);
    const auto step = static_cast<uint64_t>(std::max<int64_t>(1, n_all / n_sample));
    scratch.sample.clear();
    uint64_t state = 1;
    for (size_t a = 0; a < arrays.values.size(); ++a) {
        const double most = arrays.ceilings.empty() ? HUGE_VAL : arrays.ceilings[a].value;
        for (const Run & run : arrays.values[a].runs) {
            for (size_t k = run.begin; k < run.end;) {
                state = state * 6364136223846793005ULL + 1442695040888963407ULL;
                k += ((state >> 32U) * (2 * step - 1)) >> 32U;
                if (k < run.end && arrays.values[a].all[k] < most) {
                    scratch.sample.push_back(order_key(arrays.values[a].all[k]));
                }
                ++k;
            }
        }
    }
    const auto n = static_cast<double>(scratch.sample.size());
    if (n < 256) {
        return {};
    }
    const double share = static_cast<double>(n_drop) / static_cast<double>(n_all);
    const double margin = 4 * std::sqrt(n * share * (1 - share)) + 4;
    const auto key_at = [&](double rank) {
        return from_order_key(cut_keys(scratch.sample, static_cast<int64_t>(rank), scratch.few).key);
    };
    Bracket out;
    if (share * n - margin >= 1) {
        out.low = key_at(share * n - margin);
    }
    if (share * n + margin <= n) {
        out.high = key_at(share * n + margin);
    }
    return out;
}

/// Appends the values in the bracket, counts those below.
int64_t gather(const Values & values, const Bracket & bracket, std::vector<double> & out, size_t & n) {
    constexpr size_t kBlock = 4096;
    int64_t n_below = 0;
    for (const Run & run : values.runs) {
        for (size_t first = run.begin; first < run.end; first += kBlock) {
            const auto part = values.all.subspan(first, std::min(kBlock, run.end - first));
            if (out.size() < n + part.size() + kScanSlack) {
                out.resize(n + part.size() + kScanSlack);
            }
            n += scan_between(part.data(), part.size(), bracket.low, bracket.high, out.data() + n, n_below);
        }
    }
    return n_below;
}

/// How many values of an array that take part lie below a cut's value, and how many equal it.
struct Share {
    int64_t n_below = 0, n_equal = 0;
};

/// The cut below which n_drop values of all arrays lie, and the share of each array if asked for.
Cut cut_arrays(const Arrays & arrays, int64_t n_drop, CutScratch & scratch, std::vector<Share> * shares) {
    Bracket bracket = guess_bracket(arrays, n_drop, scratch);
    std::vector<size_t> ends;
    std::vector<int64_t> below;
    int64_t n_low = 0;
    size_t n = 0;
    for (;;) {
        ends.clear();
        below.clear();
        n = 0;
        for (size_t a = 0; a < arrays.values.size(); ++a) {
            Bracket own = bracket;
            size_t n_tied = 0;
            double most = 0;
            if (!arrays.ceilings.empty()) {
                most = arrays.ceilings[a].value;
                own.high = std::min(own.high, std::nextafter(most, -HUGE_VAL));
                n_tied =
                    bracket.low <= most && most <= bracket.high ? static_cast<size_t>(arrays.ceilings[a].n_tied) : 0;
            }
            if (own.low <= own.high) {
                below.push_back(gather(arrays.values[a], own, scratch.gathered, n));
            } else {  // all that take part lie below the bracket, but for those equal to the ceiling
                below.push_back(arrays.n_each - static_cast<int64_t>(n_tied));
            }
            if (n_tied > 0) {
                if (scratch.gathered.size() < n + n_tied) {
                    scratch.gathered.resize(n + n_tied);
                }
                std::fill_n(scratch.gathered.begin() + static_cast<std::ptrdiff_t>(n), n_tied, most);
                n += n_tied;
            }
            ends.push_back(n);
        }
        n_low = std::accumulate(below.begin(), below.end(), int64_t{0});
        if (n_low < n_drop && n_drop <= n_low + static_cast<int64_t>(n)) {
            break;
        }
        bracket = {};  // the sample deceived
    }
    scratch.keys.resize(n);
    std::transform(scratch.gathered.begin(), scratch.gathered.begin() + static_cast<std::ptrdiff_t>(n),
                   scratch.keys.begin(), order_key);
    const KeyCut cut = cut_keys(scratch.keys, n_drop - n_low, scratch.few);
    if (shares != nullptr) {
        for (size_t a = 0, i = 0; a < ends.size(); ++a) {
            Share & share = shares->emplace_back(Share{.n_below = below[a]});
            for (; i < ends[a]; ++i) {
                share.n_below += scratch.keys[i] < cut.key ? 1 : 0;
                share.n_equal += scratch.keys[i] == cut.key ? 1 : 0;
            }
        }
    }
    return {.value = from_order_key(cut.key), .n_tied = cut.n_tied};
}

}  // namespace

std::vector<Run> runs_of(std::span<const uint8_t> mask) {
    std::vector<Run> out;
    for (auto at = mask.begin(); at != mask.end();) {
        const auto begin = std::find(at, mask.end(), uint8_t{1});
        at = std::find(begin, mask.end(), uint8_t{0});
        if (begin != at) {
            out.push_back({static_cast<size_t>(begin - mask.begin()), static_cast<size_t>(at - mask.begin())});
        }
    }
    return out;
}

size_t n_places(std::span<const Run> runs) {
    size_t n = 0;
    for (const Run & run : runs) {
        n += run.end - run.begin;
    }
    return n;
}

Cut find_cut(const Values & values, int64_t n_drop, CutScratch & scratch) {
    return cut_arrays({.values = {&values, 1}, .ceilings = {}, .n_each = static_cast<int64_t>(values.n)}, n_drop,
                      scratch, nullptr);
}

std::vector<PoolCut> cut_pool(std::span<const Values> arrays, int64_t n_best, int64_t n_taken, CutScratch & scratch) {
    std::vector<PoolCut> out(arrays.size());
    const int64_t n_each = arrays.empty() ? 0 : static_cast<int64_t>(arrays[0].n) - n_best;
    const int64_t n_all = static_cast<int64_t>(arrays.size()) * n_each;
    const int64_t n_drop = std::clamp<int64_t>(n_all - n_taken, 0, n_all);
    if (n_drop == 0) {
        return out;
    }
    std::vector<Cut> ceilings;
    for (size_t a = 0; n_best > 0 && a < arrays.size(); ++a) {
        ceilings.push_back(find_cut(arrays[a], n_each, scratch));
    }
    std::vector<Share> shares;
    const Cut cut = cut_arrays({.values = arrays, .ceilings = ceilings, .n_each = n_each}, n_drop, scratch, &shares);
    int64_t n_equal = 0;
    for (const Share & share : shares) {
        n_equal += share.n_equal;
    }
    // Nearly always all that equal the cut are dropped; otherwise the first ones in the order (place, array).
    const bool drops_all = n_equal == cut.n_tied;
    for (size_t a = 0; a < arrays.size(); ++a) {
        const int64_t n_tied = drops_all ? shares[a].n_equal : 0;
        out[a] = {.cut = {.value = cut.value, .n_tied = n_tied}, .n_drop = shares[a].n_below + n_tied};
        if (!ceilings.empty() && ceilings[a].value < cut.value) {
            out[a].cut = ceilings[a];
        }
    }
    int64_t left = drops_all ? 0 : cut.n_tied;
    for (const Run & run : arrays[0].runs) {
        for (size_t k = run.begin; k < run.end && left > 0; ++k) {
            for (size_t a = 0; a < arrays.size() && left > 0; ++a) {
                if (arrays[a].all[k] == cut.value && out[a].cut.n_tied < shares[a].n_equal) {
                    ++out[a].cut.n_tied;
                    ++out[a].n_drop;
                    --left;
                }
            }
        }
    }
    return out;
}

Descending::Descending(std::span<const double> values) : keys_(values.size()) {
    const uint64_t first = values.empty() ? 0 : ~order_key(values[0]);
    uint64_t differing = 0;
    for (const double x : values) {
        differing |= ~order_key(x) ^ first;
    }
    const Digit digit(differing);
    Counts counts{};
    for (const double x : values) {
        ++counts[digit(~order_key(x))];
    }
    uint32_t end = 0;
    for (uint32_t & count : counts) {
        const uint32_t start = end;
        end += count;
        if (count != 0) {
            ends_.push_back(end);
        }
        count = start;
    }
    for (const double x : values) {
        const uint64_t key = ~order_key(x);
        keys_[counts[digit(key)]++] = key;
    }
}

double Descending::at(size_t i) const {
    return from_order_key(~keys_[i]);
}

void Descending::sort_more() {
    constexpr size_t kAtLeast = 512;
    const size_t target = n_sorted_ + kAtLeast;
    while (group_ < ends_.size() && n_sorted_ < target) {
        const size_t n = ends_[group_++] - n_sorted_;
        if (other_.size() < n) {
            other_.resize(n);
        }
        sort_keys(std::span(keys_).subspan(n_sorted_, n), std::span(other_).first(n));
        n_sorted_ += n;
    }
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
