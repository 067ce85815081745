// SPDX-License-Identifier: MIT
// GCC before 14 does not know that AMX's loads read memory (PR target/114098): it drops the stores that fill the
// configuration of the tiles, and the processor then refuses it. Put before ggml's AMX products with -include.
#pragma once

#include <immintrin.h>

#undef _tile_loadd
#define _tile_loadd(tile, base, stride) KVSIEVE_TILE_LOADD(tile, base, stride)
#define KVSIEVE_TILE_LOADD(tile, base, stride)                                                     \
    __asm__ volatile("{tileloadd\t(%0,%1,1), %%tmm" #tile "|tileloadd\t%%tmm" #tile ", [%0+%1*1]}" \
                     :                                                                             \
                     : "r"(static_cast<const void *>(base)), "r"(static_cast<long>(stride))        \
                     : "memory")
#define _tile_loadconfig(config) \
    __asm__ volatile("ldtilecfg\t%X0" : : "m"(*reinterpret_cast<const char(*)[64]>(config)) : "memory")
