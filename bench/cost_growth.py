#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How a decode step's time grows with the prompt's length and the number of sequences: a table, and a plot as SVG.

    pip install matplotlib
    bench/cost_growth.py build/release/bin [-o docs/img/cost_growth.svg] [--json FILE] [--threads N] [--layers N]

A model of random weights in the shape of compare_llama_cpp.sh's (24 layers x 2048, 16 heads x 128, Q4_0), with a share
of 1, 0.2 and 0.1 of the rows kept. No prompt is prefilled: the rows are made up (kvsieve_decode_cost). Where the rows
of all sequences take more than --gib, a case is left out. The line fitted through all steps,
t = t0 + n_seq t1 + bytes / rate, says at which rate the rows are read; it stands beside what plain reading reaches in
the same run.
"""
import argparse
import json
import os
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from compare_llama_cpp import json_lines, run

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
BATCHES = [1, 4, 16]
KEEPS = ["1", "0.2", "0.1"]
COLOURS = {1: "#4477aa", 4: "#228833", 16: "#cc6677"}
STYLES = {"1": "-", "0.2": "--", "0.1": ":"}


def measure(program, model, args):
    rows = []
    for line in json_lines(run([program, model, ",".join(map(str, LENGTHS)), ",".join(map(str, BATCHES)), ",".join(KEEPS),
                                int(args.gib * 1024), args.threads, args.steps])[0]):
        rows.append({"n_prompt": line["n_prompt"], "n_seq": line["n_seq"], "keep": f"{line['keep']:g}",
                     "kv_bytes": line["kv_bytes"], "step_ms": line["step_ms_p50"]})
        print(f"| {line['n_prompt']} | {line['n_seq']} | {line['keep']:g} | {line['kv_bytes'] / 1e6:.1f} | "
              f"{line['step_ms_p50']:.2f} |")
    return rows


def fit(rows):
    """t0, t1 (ms) and the rate (GB/s) with the least relative error."""
    t = np.array([r["step_ms"] for r in rows])
    a = np.array([[1.0, r["n_seq"], r["kv_bytes"] / 1e6] for r in rows]) / t[:, None]
    (t0, t1, ms_per_mb), *_ = np.linalg.lstsq(a, np.ones(len(t)), rcond=None)
    error = np.abs(a @ [t0, t1, ms_per_mb] - 1.0)
    return t0, t1, 1.0 / ms_per_mb, float(np.median(error)), float(error.max())


def plot(rows, fitted, read_gbps, n_layer, path):
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kvsieve", "font.family": "sans-serif", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for n_seq in BATCHES:
        for keep in KEEPS:
            line = [r for r in rows if r["n_seq"] == n_seq and r["keep"] == keep]
            left.plot([r["n_prompt"] for r in line], [r["step_ms"] for r in line], STYLES[keep], color=COLOURS[n_seq],
                      marker=".", label=f"batch {n_seq}, keep {keep}")
        some = [r for r in rows if r["n_seq"] == n_seq]
        right.plot([r["kv_bytes"] / 1e6 for r in some], [r["step_ms"] for r in some], "o", ms=4, color=COLOURS[n_seq],
                   label=f"batch {n_seq}")
    t0, t1, rate, *_ = fitted
    mb = np.geomspace(min(r["kv_bytes"] for r in rows), max(r["kv_bytes"] for r in rows)) / 1e6
    for n_seq in BATCHES:
        right.plot(mb, t0 + n_seq * t1 + mb / rate, "-", lw=0.8, color=COLOURS[n_seq])
    right.plot(mb, mb / read_gbps, "-", lw=0.8, color="0.5", label=f"plain reading, {read_gbps:.0f} GB/s")
    for axes, what in ((left, "tokens of the prompt"), (right, "rows read, MB")):
        axes.set(xscale="log", yscale="log", xlabel=what, ylabel=f"step, ms ({n_layer} layers)")
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
        axes.set_yticks(ticks, [str(t) for t in ticks])
        axes.tick_params(axis="y", which="minor", length=0, labelleft=False)
        axes.grid(which="major", lw=0.3)
        axes.legend(fontsize=7, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    left.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    left.minorticks_off()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=Path, help="where kvsieve, kvsieve_attention_cost and kvsieve_decode_cost lie")
    parser.add_argument("-o", "--out", type=Path, default=Path("cost_growth.svg"))
    parser.add_argument("--json", type=Path, help="what was measured; plotted again without measuring where it exists")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--ff", type=int, default=5632, help="width of the feed-forward layers")
    parser.add_argument("--gib", type=float, default=6.0, help="most memory for the rows of all sequences")
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    if args.json and args.json.exists():
        result = json.loads(args.json.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model.gguf"
            run([args.bin / "kvsieve", "make-model", "-o", model, "--layers", args.layers, "--width", 2048, "--heads", 16,
                 "--kv-heads", 16, "--head-dim", 128, "--ff", args.ff, "--vocab", 32000, "--ctx", 32768, "--type", "q4_0"])
            print("| prompt | batch | keep | rows, MB | step, ms |\n|---|---|---|---|---|")
            read = [x["read_gbps"] for x in json_lines(run([args.bin / "kvsieve_attention_cost", 2048, args.threads, 3])[0])]
            result = {"read_gbps": max(read), "n_layer": args.layers,
                      "rows": measure(args.bin / "kvsieve_decode_cost", model, args)}
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
    fitted = fit(result["rows"])
    t0, t1, rate, median, worst = fitted
    print(f"\nstep = {t0:.2f} ms + {t1:.2f} ms a sequence + rows at {rate:.1f} GB/s (plain reading {result['read_gbps']:.1f}); "
          f"error {100 * median:.0f} % in the median, {100 * worst:.0f} % at most")
    plot(result["rows"], fitted, result["read_gbps"], result["n_layer"], args.out)


if __name__ == "__main__":
    main()
