// SPDX-License-Identifier: MIT
#include "cache/hadamard.h"

#include <cmath>
#include <cstddef>

namespace kvsieve {

namespace {

/// One butterfly stage of distance H over N elements; constant trip counts let the compiler vectorise.
template <int N, int H>
inline void butterfly(float * x) noexcept {
    for (int i = 0; i < N; i += 2 * H) {
        for (int j = i; j < i + H; ++j) {
            const float a = x[j];
            const float b = x[j + H];
            x[j] = a + b;
            x[j + H] = a - b;
        }
    }
    if constexpr (2 * H < N) {
        butterfly<N, 2 * H>(x);
    }
}

template <int N>
void transform(float * x) noexcept {
    const float scale = 1.0F / std::sqrt(static_cast<float>(N));
    // Distances 1 and 2 in one pass, with the scaling.
    for (int i = 0; i < N; i += 4) {
        const float a = scale * (x[i] + x[i + 1]);
        const float b = scale * (x[i] - x[i + 1]);
        const float c = scale * (x[i + 2] + x[i + 3]);
        const float d = scale * (x[i + 2] - x[i + 3]);
        x[i] = a + c;
        x[i + 1] = b + d;
        x[i + 2] = a - c;
        x[i + 3] = b - d;
    }
    butterfly<N, 4>(x);
}

void transform_any(float * x, size_t n) noexcept {
    const float scale = 1.0F / std::sqrt(static_cast<float>(n));
    for (size_t h = 1; h < n; h *= 2) {
        for (size_t i = 0; i < n; i += 2 * h) {
            for (size_t j = i; j < i + h; ++j) {
                const float a = x[j];
                const float b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        }
    }
    for (size_t i = 0; i < n; ++i) {
        x[i] *= scale;
    }
}

}  // namespace

int32_t key_rotation_block(int32_t head_dim) noexcept {
    if (head_dim <= 0 || head_dim % 64 != 0) {
        return 0;
    }
    return head_dim & -head_dim;
}

int32_t value_rotation_block(int32_t head_dim) noexcept {
    return head_dim > 0 && head_dim % 64 == 0 ? 64 : 0;
}

void hadamard_rotate(std::span<float> row, int32_t block) noexcept {
    if (block <= 0) {
        return;
    }
    const auto step = static_cast<size_t>(block);
    for (size_t i = 0; i + step <= row.size(); i += step) {
        float * x = row.data() + i;
        switch (block) {
            case 64:
                transform<64>(x);
                break;
            case 128:
                transform<128>(x);
                break;
            case 256:
                transform<256>(x);
                break;
            default:
                transform_any(x, step);
        }
    }
}

}  // namespace kvsieve
