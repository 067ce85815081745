// SPDX-License-Identifier: MIT
#include "eval/inequality.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kvsieve {
namespace {

/// [n + 1] sums of the i least important ones.
std::vector<double> cumulated(std::span<const float> importance) {
    std::vector<float> sorted(importance.begin(), importance.end());
    std::sort(sorted.begin(), sorted.end());
    std::vector<double> sums{0.0};
    for (const float x : sorted) {
        sums.push_back(sums.back() + static_cast<double>(x));
    }
    return sums;
}

}  // namespace

std::vector<double> lorenz_curve(std::span<const float> importance, int n_points) {
    const std::vector<double> sums = cumulated(importance);
    std::vector<double> curve;
    for (int i = 0; i < n_points; ++i) {
        const double share = static_cast<double>(i) / (n_points - 1);
        if (!(sums.back() > 0)) {
            curve.push_back(share);
            continue;
        }
        const double at = share * static_cast<double>(importance.size());
        const auto below = std::min(static_cast<size_t>(at), importance.size() - 1);
        const double part = at - static_cast<double>(below);
        curve.push_back((sums[below] + part * (sums[below + 1] - sums[below])) / sums.back());
    }
    return curve;
}

double gini(std::span<const float> importance) {
    const std::vector<double> sums = cumulated(importance);
    if (!(sums.back() > 0)) {
        return 0.0;
    }
    double area = 0;
    for (size_t i = 1; i < sums.size(); ++i) {
        area += sums[i - 1] + sums[i];  // twice a trapezium of width 1
    }
    return 1.0 - area / (sums.back() * static_cast<double>(importance.size()));
}

}  // namespace kvsieve
