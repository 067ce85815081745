// SPDX-License-Identifier: MIT
// Orthonormal Walsh-Hadamard rotation of cached rows (natural order). It is symmetric and its own inverse, so the
// same call rotates queries before attention and rotates outputs back.
#pragma once

#include <cstdint>
#include <span>

namespace kvsieve {

/// Block size in which keys (and queries) are rotated: the largest power of two that divides head_dim, if head_dim
/// is a multiple of 64; else 0 = not rotated. 64 -> 64, 96 -> 0, 128 -> 128, 192 -> 64, 256 -> 256.
/// The convention of llama.cpp's KV cache, so that quality is comparable.
[[nodiscard]] int32_t key_rotation_block(int32_t head_dim) noexcept;

/// The same for values (and attention outputs): 64 if head_dim is a multiple of 64, else 0.
[[nodiscard]] int32_t value_rotation_block(int32_t head_dim) noexcept;

/// Rotates every `block` consecutive elements in place. `block` is a power of two that divides row.size(), or 0:
/// nothing happens. Several rows that lie behind one another may be given as one span.
void hadamard_rotate(std::span<float> row, int32_t block) noexcept;

}  // namespace kvsieve
