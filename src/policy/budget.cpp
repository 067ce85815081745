// SPDX-License-Identifier: MIT
#include "policy/budget.h"

#include <cmath>
#include <cstddef>

namespace kvsieve {

int64_t trunc_guarded(double x) {
    return static_cast<int64_t>(std::floor(x + 1e-9));
}

int64_t round_half_even(double x) {
    const double below = std::floor(x);
    const double part = x - below;
    const auto n = static_cast<int64_t>(below);
    if (part != 0.5) {
        return part < 0.5 ? n : n + 1;
    }
    return n % 2 == 0 ? n : n + 1;
}

int64_t rows_of_keep(int64_t n_tokens, double keep) {
    return trunc_guarded(static_cast<double>(n_tokens) * keep);
}

std::vector<double> capped_shares(std::span<const double> weights, double keep) {
    const size_t n = weights.size();
    std::vector<double> shares(n);
    for (size_t l = 0; l < n; ++l) {
        shares[l] = weights[l] * keep;
    }
    std::vector<bool> capped(n, false);
    for (;;) {
        bool changed = false;
        for (size_t l = 0; l < n; ++l) {
            if (!capped[l] && shares[l] > 1.0) {
                shares[l] = 1.0;
                capped[l] = true;
                changed = true;
            }
        }
        if (!changed) {
            return shares;
        }
        double rest = keep * static_cast<double>(n);
        double weight_sum = 0;
        size_t n_free = 0;
        for (size_t l = 0; l < n; ++l) {
            if (capped[l]) {
                rest -= 1.0;
            } else {
                weight_sum += weights[l];
                ++n_free;
            }
        }
        for (size_t l = 0; l < n; ++l) {
            if (!capped[l]) {
                shares[l] = weight_sum > 0 ? rest * weights[l] / weight_sum : rest / static_cast<double>(n_free);
            }
        }
    }
}

std::vector<int64_t> largest_remainder(std::span<const double> shares, int64_t size, int64_t total) {
    const auto width = static_cast<double>(size);
    std::vector<int64_t> counts;
    for (const double share : shares) {
        counts.push_back(trunc_guarded(share * width));
        total -= counts.back();
    }
    for (; total > 0; --total) {
        size_t best = shares.size();
        double most = 0;
        for (size_t l = 0; l < shares.size(); ++l) {
            const double remainder = shares[l] * width - static_cast<double>(counts[l]);
            if (counts[l] < size && (best == shares.size() || remainder > most)) {
                best = l;
                most = remainder;
            }
        }
        if (best == shares.size()) {
            break;  // every entry is full
        }
        ++counts[best];
    }
    return counts;
}

}  // namespace kvsieve
