#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kvsieve beside llama.cpp's own batched benchmark, built from the same sources: both run alternately on a model of
# random weights (24 layers x 2048, 16 heads x 128, Q4_0), and ratios are printed with their spread.
#   bench/compare_llama_cpp.sh [--rounds N] [--threads N] [--only kernel,decode,long,quantised,prefill,image] [--json FILE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/setup.sh

install_packages "$build_packages"
check_versions
build release ON kvsieve_cli kvsieve_attention_cost
if [ ! -f build/llama.cpp/build.ninja ]; then
    cmake -S bench/llama_cpp -B build/llama.cpp -G Ninja >build/llama.cpp.configure.log 2>&1 ||
        { tail -n 20 build/llama.cpp.configure.log >&2; stop "the configuration of build/llama.cpp failed"; }
fi
cmake --build build/llama.cpp --parallel "$(build_jobs)" --target llama-batched-bench llama-mtmd-cli >&2

model=build/bench/random-1b-q4_0.gguf
if [ ! -f "$model" ]; then
    mkdir -p build/bench
    build/release/bin/kvsieve make-model -o "$model" --layers 24 --width 2048 --heads 16 --kv-heads 16 --head-dim 128 --ff 5632 --vocab 32000 --ctx 16384 \
        --type q4_0 >&2
fi
exec python3 bench/compare_llama_cpp.py --kvsieve build/release/bin --llama build/llama.cpp/bin --model "$model" "$@"
