#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes the embedded model from nothing, or continues from the committed pair:
#   tools/train/make_model.sh [--continue] [--steps N] [--out FOLDER] [--work FOLDER]
# Interrupted runs resume: call it again with the same --work.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${XDG_CACHE_HOME:-$HOME/.cache}/kvsieve-train
out= resume=0 steps=3000
while [ $# -gt 0 ]; do
  case $1 in
    --continue) resume=1 ;;
    --steps) steps=$2; shift ;;
    --out) out=$2; shift ;;
    --work) work=$2; shift ;;
    *) sed -n '3,5p' "$0"; exit 2 ;;
  esac
  shift
done
out=${out:-$work/pair}
mkdir -p "$work"

python=$work/venv/bin/python
if [ ! -x "$python" ]; then
  python3 -m venv "$work/venv"
  "$python" -m pip install --quiet -r "$here/requirements.txt"
fi
"$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import canvas, vocab
for face in range(len(vocab.FONTS)): canvas.load_face(face, 16)' "$here"

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
for library in /usr/lib/*/libjemalloc.so.2; do
  if [ -e "$library" ]; then
    export LD_PRELOAD=$library
    export MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always,metadata_thp:always
  fi
done
train() { "$python" "$here/train.py" --workers "$(nproc)" --pause-file "$work/PAUSE" "$@"; }

if [ "$resume" = 1 ]; then
  tokens=$root/models
  [ -e "$work/first" ] || date +%s000 >"$work/first"
  train --work "$work/continued" --stage full --init "$root/models" --steps "$steps" --decay 0.85 \
    --batch 6 --muon-rate 0.008 --adam-rate 4e-4 --vision-scale 0.2 --guide 0.15 \
    --reading 0.1 --conversations 0.6 --first-sample "$(cat "$work/first")"
  last=$work/continued/checkpoint.pt
else
  tokens=$work/tokenizer.json
  [ -e "$tokens" ] || "$python" "$here/tokenizer.py" "$tokens"
  train --work "$work/reading" --stage reading --tokenizer "$tokens" --steps 1500 --batch 16 \
    --muon-rate 0.02 --adam-rate 1e-3
  train --work "$work/strips" --stage strips --tokenizer "$tokens" \
    --init "$work/reading/checkpoint.pt" --steps 600 --batch 16 --tokens 160 \
    --muon-rate 0.02 --adam-rate 1e-3 --decay 0.02
  train --work "$work/full" --stage full --tokenizer "$tokens" \
    --init "$work/strips/checkpoint.pt" --steps "$steps" --batch 8 --conversations 0.5
  last=$work/full/checkpoint.pt
fi

"$python" "$here/export.py" "$last" "$out" --tokens "$tokens"
"$python" "$here/make_eval_data.py" "$work/heldout" --images 250
"$python" "$here/evaluate.py" --pair "$out" --data "$work/heldout/heldout.jsonl" \
  --threads "$(nproc)" --json "$out/evaluation.json"
