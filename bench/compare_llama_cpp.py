# SPDX-License-Identifier: MIT
"""Runs kvsieve and llama.cpp alternately and prints ratios with their spread; called by compare_llama_cpp.sh."""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command):
    """Its stdout and stderr; ends the program where the command failed."""
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{result.stderr[-2000:]}")
    return result.stdout, result.stderr


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def keep_of(method, keep):
    return [] if method == "full" else ["--keep", keep]


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows = []  # of all tables, for --json

    def llama(self, n_prompt, n_seq, n_gen, kv_type="f16"):
        """One run of the batched benchmark: one prompt, shared by all sequences, then their tokens together."""
        n_ctx = n_seq * (n_prompt + n_gen) + 256
        out, err = run([self.args.llama / "llama-batched-bench", "-m", self.args.model, "-c", n_ctx, "-b", 2048, "-ub", 512,
                        "-npp", n_prompt, "-ntg", n_gen, "-npl", n_seq, "-pps", "-t", self.args.threads,
                        "-tb", self.args.threads, "-fa", "on", "-ctk", kv_type, "-ctv", kv_type,
                        "--output-format", "jsonl", "-ngl", 0])
        lines = json_lines(out) or json_lines(err)
        if len(lines) != 1:
            sys.exit(f"llama-batched-bench printed {len(lines)} results, expected 1:\n{out}\n{err[-2000:]}")
        return {"prefill_ms": 1e3 * lines[0]["t_pp"], "decode_tps": lines[0]["speed_tg"]}

    def kvsieve(self, n_prompt, n_seq, n_gen, method, keep, kv_type):
        """The same with kvsieve; all but 64 tokens of the prompt count as visual."""
        line, = json_lines(run([self.args.kvsieve / "kvsieve", "bench", "-m", self.args.model, "--prompt-tokens", n_prompt,
                                "--visual", n_prompt - 68, "--batch", n_seq, "--gen", n_gen, "--method", method,
                                *keep_of(method, keep),
                                "--kv-type", kv_type, "--threads", self.args.threads, "--repeat", 1, "--bare",
                                "--json"])[0])
        line["prefill_ms"] = 1e3 * line["n_prompt"] / line["prefill_tps"] + line["plan_ms"] + line["compact_ms"]
        return line

    def alternate(self, *measures):
        """[rounds] results of each, in turns, so that a slow minute of the machine meets all of them."""
        results = [[] for _ in measures]
        for r in range(self.args.rounds):
            order = list(range(len(measures)))
            for i in order[r % len(order):] + order[:r % len(order)]:
                results[i].append(measures[i]())
        return results

    def add(self, table, name, goal, ours, theirs, ratios, unit):
        ratios = sorted(ratios)
        row = {"table": table, "case": name, "unit": unit, "kvsieve": statistics.median(ours),
               "llama.cpp": statistics.median(theirs), "ratio": statistics.median(ratios), "ratio_min": ratios[0],
               "ratio_max": ratios[-1], "goal": goal, "rounds": len(ratios)}
        self.rows.append(row)
        print(f"| {name} | {row['kvsieve']:.2f} | {row['llama.cpp']:.2f} | {row['ratio']:.2f} "
              f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f}) | {goal} |", flush=True)

    def head(self, title, unit):
        print(f"\n{title}\n\n| case | kvsieve {unit} | llama.cpp {unit} | ratio (least to most) | goal |\n|---|---|---|---|---|",
              flush=True)

    def decode(self, cases, title):
        self.head(title, "tok/s")
        for n_prompt, n_seq, variants in cases:
            n_gen = self.args.gen
            measures = [lambda: self.llama(n_prompt, n_seq, n_gen)]
            measures += [lambda v=v: self.kvsieve(n_prompt, n_seq, n_gen, *v[:3]) for v in variants]
            theirs, *all_ours = self.alternate(*measures)
            for (method, keep, kv_type, goal), ours in zip(variants, all_ours):
                a, b = [x["decode_tps"] for x in ours], [x["decode_tps"] for x in theirs]
                self.add("decode", f"prompt {n_prompt}, batch {n_seq}, {method} keep {keep}, {kv_type}", goal, a, b,
                         [x / y for x, y in zip(a, b)], "tok/s")

    def quantised(self):
        """Rows of the same rotated types in both, nothing evicted."""
        self.head("Decoding behind 2,048 tokens with quantised rows in both, nothing evicted", "tok/s")
        types = ["q8_0", "q4_0"]
        measures = [lambda t=t: self.llama(2048, 4, self.args.gen, t) for t in types]
        measures += [lambda t=t: self.kvsieve(2048, 4, self.args.gen, "full", 1, t) for t in types]
        results = self.alternate(*measures)
        for kv_type, theirs, ours in zip(types, results[:2], results[2:]):
            a, b = [x["decode_tps"] for x in ours], [x["decode_tps"] for x in theirs]
            self.add("quantised", f"prompt 2048, batch 4, {kv_type}", "", a, b, [x / y for x, y in zip(a, b)], "tok/s")

    def prefill(self):
        self.head("Time of a prompt of 2,048 tokens (ratio: kvsieve's time / llama.cpp's)", "ms")
        variants = [("full", 1, "<= 1.00"), ("prefixkv", 0.2, "<= 1.05"), ("aircache", 0.2, "<= 1.02"),
                    ("sieve", 0.2, "<= 1.05 x full")]
        measures = [lambda: self.llama(2048, 1, 1)]
        measures += [lambda v=v: self.kvsieve(2048, 1, 1, v[0], v[1], "f16") for v in variants]
        theirs, *all_ours = self.alternate(*measures)
        for (method, keep, goal), ours in zip(variants, all_ours):
            a, b = [x["prefill_ms"] for x in ours], [x["prefill_ms"] for x in theirs]
            self.add("prefill", f"prompt 2048, {method} keep {keep}", goal, a, b, [x / y for x, y in zip(a, b)], "ms")

    def image(self):
        """The embedded model on an example image: time from the start of encoding to the first token, and decoding."""
        self.head("The embedded model, one example image: first token (ratio: kvsieve's time / llama.cpp's)", "ms")
        models, image = ROOT / "models", ROOT / "models/examples/form_1.png"
        model, mmproj = models / "kvsieve-tiny-model-f16.gguf", models / "kvsieve-tiny-mmproj-f16.gguf"
        question = "Transcribe the image."

        def theirs():
            _, err = run([self.args.llama / "llama-mtmd-cli", "-m", model, "--mmproj", mmproj, "--image", image, "-p",
                          question, "-t", self.args.threads, "-n", 64, "--temp", 0, "--perf", "--no-warmup", "-lv", 4])
            def pick(pattern):
                found = re.search(pattern, err)
                return float(found[1]) if found else sys.exit(f"llama-mtmd-cli printed no '{pattern}':\n{err[-2000:]}")
            # counted from the text before the image on: the encoding is in it
            return {"first_ms": pick(r"prompt eval time = +([\d.]+) ms"),
                    "decode_tps": pick(r"(?<!prompt) eval time = .*?([\d.]+) tokens per second")}

        def ours(method, keep):
            answer = json.loads(run([self.args.kvsieve / "kvsieve", "run", "--image", image, "-p", question, "--method",
                                     method, *keep_of(method, keep), "--threads", self.args.threads, "--n-predict", 64,
                                     "--json"])[0])
            t = answer["timings"]
            return {"first_ms": t["vision_ms"] + t["prefill_ms"] + t["plan_ms"] + t["compact_ms"],
                    "decode_tps": t["decode_tok_s"]}

        variants = [("full", 1), ("prefixkv", 0.2), ("aircache", 0.2), ("sieve", 0.2)]
        their, *all_ours = self.alternate(theirs, *[lambda v=v: ours(*v) for v in variants])
        for key, unit in (("first_ms", "ms"), ("decode_tps", "tok/s")):
            if key == "decode_tps":
                self.head("The same: decoding", unit)
            for (method, keep), mine in zip(variants, all_ours):
                a, b = [x[key] for x in mine], [x[key] for x in their]
                self.add("image", f"{method} keep {keep}", "", a, b, [x / y for x, y in zip(a, b)], unit)

    def kernel(self):
        """bench/attention.cpp on its own: it takes turns with ggml's operation and with plain reading itself."""
        print("\nDecode attention alone, 2,048 rows of 128 (tok/s: of the attention, against f16 rows)\n\n"
              "| heads on KV heads | rows | sequences | GB/s | of read bandwidth | tok/s | ggml's time / ours |\n"
              "|---|---|---|---|---|---|---|", flush=True)
        lines = json_lines(run([self.args.kvsieve / "kvsieve_attention_cost", 2048, self.args.threads, 9])[0])
        f16 = {(x["n_head"], x["n_seq"]): x["layer_us"] for x in lines if x["kv_type"] == "f16"}
        for x in lines:
            self.rows.append({"table": "kernel", **x})
            print(f"| {x['n_head']} on {x['n_head_kv']} | {x['kv_type']} | {x['n_seq']} | {x['kernel_gbps']:.1f} "
                  f"| {100 * x['share_of_read']:.0f} % | {f16[x['n_head'], x['n_seq']] / x['layer_us']:.2f} "
                  f"| {x['ggml_over_kernel']:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--kvsieve", "--llama", "--model"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", help="parts, as in decode,prefill [all]")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bench = Bench(args)
    parts = {
        "kernel": bench.kernel,
        "decode": lambda: bench.decode([(2048, n, [("full", 1, "f16", full), ("prefixkv", 0.2, "f16", fifth)])
                                        for n, full, fifth in ((1, ">= 1.4", ">= 2.2"), (4, ">= 1.7", ">= 3.3"),
                                                               (8, ">= 2.0", ">= 4.0"))],
                                       "Decoding behind 2,048 tokens"),
        "long": lambda: bench.decode([(4096, 8, [("prefixkv", 0.1, "q8_0", ">= 8")])], "Decoding behind 4,096 tokens"),
        "quantised": bench.quantised,
        "prefill": bench.prefill,
        "image": bench.image,
    }
    only = args.only.split(",") if args.only else list(parts)
    if unknown := [p for p in only if p not in parts]:
        sys.exit(f"--only has {unknown[0]}; expected {', '.join(parts)}")
    start = time.time()
    for name, part in parts.items():
        if name in only:
            part()
    print(f"\n{args.rounds} rounds, {args.threads} threads, {time.time() - start:.0f} s", flush=True)
    if args.json:
        with tempfile.NamedTemporaryFile("w", dir=args.json.parent, delete=False) as f:
            json.dump(bench.rows, f, indent=1)
        os.replace(f.name, args.json)


if __name__ == "__main__":
    main()
