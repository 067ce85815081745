// SPDX-License-Identifier: MIT
// What all files with Highway code agree on; to be included before any header of Highway.
#pragma once

// Vectors of unknown length cannot stand in arrays; such processors have NEON too.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif

// Loops over vectors in registers: GCC keeps the arrays in registers only where it unrolls them early.
#if defined(__GNUC__) && !defined(__clang__)
#define KVSIEVE_UNROLL _Pragma("GCC unroll 16")
#else
#define KVSIEVE_UNROLL
#endif
