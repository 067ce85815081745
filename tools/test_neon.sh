#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the tests of the attention kernels with NEON on another processor: compiled for aarch64, run by qemu-user. Fetches nothing.
#
#   tools/test_neon.sh [HWY_DIR] [-- GTEST ARGUMENTS]
#
# Needs the Debian packages g++-aarch64-linux-gnu, qemu-user, googletest and libhwy-dev, the fetched llama.cpp of a
# configured build (.upstream/), and libhwy.so.1 for aarch64 in HWY_DIR (default /usr/lib/aarch64-linux-gnu: the package
# libhwy1:arm64; anywhere else after `dpkg -x`).
set -euo pipefail
cd "$(dirname "$0")/.."
stop() { printf 'test_neon: %s\n' "$*" >&2; exit 2; }

hwy_dir=/usr/lib/aarch64-linux-gnu
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    hwy_dir=$1
    shift
fi
[ "${1:-}" = -- ] && shift
gtest=/usr/src/googletest/googletest
command -v aarch64-linux-gnu-g++ >/dev/null || stop "aarch64-linux-gnu-g++ is missing (Debian: g++-aarch64-linux-gnu)"
command -v qemu-aarch64 >/dev/null || stop "qemu-aarch64 is missing (Debian: qemu-user)"
[ -f $gtest/src/gtest-all.cc ] || stop "$gtest is missing (Debian: googletest)"
[ -f /usr/include/hwy/highway.h ] || stop "Highway's headers are missing (Debian: libhwy-dev)"
[ -f "$hwy_dir/libhwy.so.1" ] || stop "$hwy_dir has no libhwy.so.1 for aarch64 (Debian: libhwy1:arm64)"
ggml=$(compgen -G '.upstream/*/vendor/llama.cpp/ggml' | head -n 1) || stop "no llama.cpp in .upstream/; run cmake --preset release first"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
ln -s /usr/include/hwy "$out/hwy"  # alone: the other headers there are of this processor
# ggml's quantisation stands alone once what nobody calls is dropped
printf '#define GGML_VERSION ""\n#define GGML_COMMIT ""\n' >"$out/ggml-version.h"
flags=(-O2 -ffunction-sections -fdata-sections -I"$ggml/include" -I"$ggml/src" -I"$out")
for source in ggml.c ggml-quants.c; do
    aarch64-linux-gnu-gcc "${flags[@]}" -std=c11 -D_GNU_SOURCE -c "$ggml/src/$source" -o "$out/$source.o"
done
aarch64-linux-gnu-g++ "${flags[@]}" -std=c++20 -Iinclude -Isrc -Itests -I$gtest/include -I$gtest \
    src/graph/attention_kernel.cpp src/graph/prefill_kernel.cpp src/policy/kv_type.cpp \
    tests/graph/attention_kernel_test.cpp tests/graph/prefill_kernel_test.cpp \
    "$ggml/src/ggml-threading.cpp" $gtest/src/gtest-all.cc $gtest/src/gtest_main.cc \
    "$out"/*.o -Wl,--gc-sections -L"$hwy_dir" -l:libhwy.so.1 -lpthread -o "$out/test"
qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$hwy_dir" "$out/test" "$@"
