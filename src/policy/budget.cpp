// SPDX-License-Identifier: MIT
#include "policy/budget.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

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

std::vector<double> capped_amounts(std::span<const double> weights, double total, double cap) {
    std::vector<double> w(weights.begin(), weights.end());
    if (std::all_of(w.begin(), w.end(), [](double x) { return !(x > 0); })) {
        std::fill(w.begin(), w.end(), 1.0);
    }
    std::vector<double> out(w.size());
    std::vector<bool> capped(w.size(), false);
    double rest = total;
    for (bool changed = true; changed;) {
        double sum = 0;
        for (size_t l = 0; l < w.size(); ++l) {
            sum += capped[l] ? 0 : w[l];
        }
        changed = false;
        for (size_t l = 0; l < w.size(); ++l) {
            if (!capped[l]) {
                out[l] = sum > 0 ? (w[l] / sum) * rest : 0;
            }
        }
        for (size_t l = 0; l < w.size(); ++l) {
            if (!capped[l] && out[l] > cap) {
                out[l] = cap;
                rest -= cap;
                capped[l] = true;
                changed = true;
            }
        }
    }
    return out;
}

std::vector<double> clipped_shares(std::span<const double> weights, double keep, double least) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<double> out;
    for (const double w : weights) {
        out.push_back(std::clamp((w / sum) * keep * static_cast<double>(weights.size()), least, 1.0));
    }
    return out;
}

std::vector<int64_t> spread_budgets(std::span<const double> weights, int64_t total, int64_t cap) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<int64_t> out;
    int64_t over = 0, left = total;
    for (const double w : weights) {
        const int64_t b = trunc_guarded((w / sum) * static_cast<double>(total));
        over += std::max<int64_t>(b - cap, 0);
        out.push_back(std::min(b, cap));
    }
    const auto spread = [&](int64_t x) {
        while (x > 0) {
            const auto n_open = std::count_if(out.begin(), out.end(), [cap](int64_t b) { return b < cap; });
            if (n_open == 0) {
                return;
            }
            const int64_t each = x / n_open;
            int64_t extra = x % n_open;
            x = 0;
            for (int64_t & b : out) {
                if (b < cap) {
                    b += each + (extra > 0 ? 1 : 0);
                    extra -= extra > 0 ? 1 : 0;
                    x += std::max<int64_t>(b - cap, 0);
                    b = std::min(b, cap);
                }
            }
        }
    };
    spread(over);
    left -= std::accumulate(out.begin(), out.end(), int64_t{0});
    spread(left);
    return out;
}

}  // namespace kvsieve
