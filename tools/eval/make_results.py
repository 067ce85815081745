#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the experiments of docs/results.md and writes their tables into it, between the marks that name them.

    tools/eval/make_results.py --smollm2 SmolLM2-135M-Instruct.Q4_1.gguf

Every experiment is one `kvsieve eval` with a results file of its own in --work: the script can be stopped and called
again, and goes on. Only the tables of experiments that are complete are written. --only NAME (repeatable) runs some.
"""
import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = "data/development/development.jsonl"
FINAL = "data/final/final.jsonl"
TEXT = "data/text/text.jsonl"
CALIBRATION = "data/calibration/calibration.jsonl"
TEXT_METHODS = ("full,random,streaming_llm,h2o,snapkv,pyramidkv,adakv,elastic_cache,uniform_prefix,prefixkv,tova,knorm,"
                "keydiff,expected_attention,cake,lava,sieve")


@dataclass
class Experiment:
    name: str
    methods: str
    keep: str = ""
    budget: str = ""
    kv_type: str = "f16"
    metrics: str = "ppl,rouge_l,exact_match,exact_match_next"
    data: str = DOCUMENTS
    limit: int = 0
    on_text: bool = False
    by_type: bool = False  # a table for each budget, with a column for each KV type


def profiles(work: Path) -> str:
    """Methods with PrefixKV budgets averaged over 1, 5 and 20 samples, at keep 0.2."""
    return ",".join(["prefixkv"] + [f"prefixkv:profile={work / f'profile_{n}.json'}" for n in (1, 5, 20)])


def experiments(work: Path) -> list[Experiment]:
    return [
        Experiment("methods", "all", keep="0.5,0.2,0.1,0.05"),
        Experiment("budgets", "all", budget="0.5,0.2,0.1,0.05"),
        Experiment("types", "full,prefixkv,aircache,expected_attention", keep="0.2",
                   kv_type="f16,q8_0,q8_0-unrotated,q4_0,q4_0-unrotated"),
        Experiment("layers", "uniform_prefix,prefixkv,importance+pyramidkv,importance+uniform,importance+aircache",
                   keep="0.5,0.2,0.1"),
        Experiment("profile", profiles(work), keep="0.2"),
        Experiment("aircache", "aircache,aircache:queries=last,aircache:queries=all,aircache:alpha=0.5,"
                   "aircache:alpha=0.8,aircache:alpha=1,aircache:weights=strength,aircache:weights=skew,"
                   "aircache:weights=uniform", keep="0.2,0.1"),
        Experiment("fault", "elastic_cache,elastic_cache:rank_fault=1", keep="0.5,0.2"),
        Experiment("final", "all", budget="0.2,0.1,0.05", kv_type="f16,q8_0,q4_0,auto", data=FINAL, limit=100,
                   metrics="ppl,exact_match,exact_match_next", by_type=True),
        Experiment("text", TEXT_METHODS, keep="0.5,0.2,0.1", metrics="ppl", data=TEXT, on_text=True),
        Experiment("text_budgets", TEXT_METHODS, budget="0.2,0.1", kv_type="f16,q8_0,q4_0,auto", metrics="ppl", data=TEXT,
                   on_text=True, by_type=True),
        Experiment("text_types", "full,h2o,expected_attention", keep="0.2", kv_type="f16,q8_0,q8_0-unrotated,q4_0,"
                   "q4_0-unrotated", metrics="ppl", data=TEXT, on_text=True),
    ]


def run(command: list, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], check=True, cwd=ROOT, **options)


def make_profiles(args) -> None:
    lines = [line for line in (ROOT / CALIBRATION).read_text().splitlines() if '"turns"' not in line]
    for n in (1, 5, 20):
        profile = args.work / f"profile_{n}.json"
        if profile.exists():
            continue
        samples = [json.loads(lines[i * len(lines) // n]) for i in range(n)]
        for sample in samples:
            sample["image"] = str(ROOT / Path(CALIBRATION).parent / sample["image"])
        data = args.work / f"profile_{n}.jsonl"
        data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        run([args.program, "profile", "--data", data, "--method", "prefixkv", "--keep", "0.2", "-o", profile])


def evaluate(args, experiment: Experiment) -> list[dict]:
    results = args.work / f"{experiment.name}.jsonl"
    command = [args.program, "eval", "--data", experiment.data, "--methods", experiment.methods, "--kv-type",
               experiment.kv_type, "--metrics", experiment.metrics, "-o", results]
    for option, value in (("--keep", experiment.keep), ("--budget", experiment.budget)):
        command += [option, value] if value else []
    limit = (args.limit_text if experiment.on_text else args.limit) or experiment.limit
    command += ["--limit", limit] if limit else []
    command += ["-m", args.smollm2, "--template", "none"] if experiment.on_text else []
    print("+", *command, flush=True)
    run(command)
    return json.loads(run([args.program, "report", results, "--json"], capture_output=True, text=True).stdout)


COLUMNS = (("ppl", "perplexity", "{:.3f}"), ("ppl_ratio", "/ full", "{:.3f}"), ("rouge_l", "ROUGE-L", "{:.3f}"),
           ("exact_match", "exact", "{:.3f}"), ("exact_match_next", "exact, next", "{:.3f}"))


def name_of(row: dict) -> str:
    return " ".join([row["method"], *(f"{k}={Path(v).stem if k == 'profile' else v}" for k, v in row["params"].items())])


def tables_by_type(rows: list[dict]) -> str:
    """For each budget the methods, best first, with perplexity over the full f16 cache's and its interval by KV type, and
    exact answers of the best type."""
    full = next(row for row in rows if row["method"] == "full" and row["kv_type"] == "f16")
    types = list(dict.fromkeys(row["kv_type"] for row in rows))
    extra = [(key, title) for key, title in (("exact_match", "exact"), ("exact_match_next", "exact, next")) if key in full]
    lines = []
    for budget in dict.fromkeys(row["budget"] for row in rows if row["budget"] is not None):
        methods = {}
        for row in rows:
            if row["budget"] == budget and row["n_samples"] > 0 and row.get("ppl"):
                methods.setdefault(name_of(row), {})[row["kv_type"]] = row
        best_of = {name: min(cells.values(), key=lambda row: row["ppl"]) for name, cells in methods.items()}
        lines += [f"**{100 * budget:g} % of the bytes**", "",
                  "| method | " + " | ".join([*types, *(f"{title} (best type)" for _, title in extra)]) + " |",
                  "|---" * (1 + len(types) + len(extra)) + "|",
                  "| `full`, all of the bytes | " + " | ".join(["1.000", *[""] * (len(types) - 1),
                                                               *(f"{full[key]:.3f}" for key, _ in extra)]) + " |"]
        for name in sorted(best_of, key=lambda name: best_of[name]["ppl"]):
            cells = []
            for kv_type in types:
                row = methods[name].get(kv_type)
                low_high = [x / full["ppl"] for x in row["ppl_ci"]] if row else None
                cells.append(f"{row['ppl'] / full['ppl']:.3f} ({low_high[0]:.2f}–{low_high[1]:.2f})" if row else "")
            best = best_of[name]
            cells += [f"{best[key]:.3f}" if best.get(key) is not None else "–" for key, _ in extra]
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
        lines.append("")
    measured = max(row["n_samples"] for row in rows)
    return "\n".join(lines) + f"\n{measured} samples; the full cache's perplexity is {full['ppl']:.3f}.\n"


def table(rows: list[dict]) -> str:
    columns = [c for c in COLUMNS if any(c[0] in row for row in rows)]
    types = len({row["kv_type"] for row in rows}) > 1
    head = ["method", *(["rows"] if types else []), "asked", "bytes", *(title for _, title, _ in columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        name = name_of(row)
        asked = f"budget {row['budget']:g}" if row["budget"] is not None else f"keep {row['keep']:g}"
        if row["method"] == "full" or "profile" in row["params"]:
            asked = ""
        cells = [f"`{name}`", *([row["kv_type"]] if types else []), asked]
        if row["n_samples"] == 0:
            cells += ["–"] * (1 + len(columns))
        else:
            cells.append(f"{100 * row['kv_bytes'] / row['kv_bytes_full']:.1f} %")
            for key, _, form in columns:
                text = form.format(row[key]) if row.get(key) is not None else "–"
                if key == "ppl" and row.get("ppl_ci"):
                    text += f" ({row['ppl_ci'][0]:.2f}–{row['ppl_ci'][1]:.2f})"
                cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    measured = max(row["n_samples"] for row in rows)
    return "\n".join(lines) + f"\n\n{measured} samples.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bin/kvsieve")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf; without it no text")
    parser.add_argument("--work", type=Path, default=ROOT / "build/results")
    parser.add_argument("--limit", type=int, default=0, help="samples of documents; 0 = all")
    parser.add_argument("--limit-text", type=int, default=0)
    parser.add_argument("--only", action="append", help="names of experiments")
    args = parser.parse_args()
    args.program = args.program.resolve()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    known = experiments(args.work)
    if unknown := set(args.only or []) - {e.name for e in known}:
        sys.exit(f"no experiment is named {', '.join(sorted(unknown))}; known are {', '.join(e.name for e in known)}")
    page = ROOT / "docs/results.md"
    for experiment in known:
        if (args.only and experiment.name not in args.only) or (experiment.on_text and not args.smollm2):
            continue
        if experiment.name == "profile":
            make_profiles(args)
        rows = evaluate(args, experiment)
        text = page.read_text()
        marks = re.compile(rf"(<!-- {experiment.name}: begin[^\n]*\n)(.*?)(<!-- {experiment.name}: end -->)", re.S)
        if not marks.search(text):
            sys.exit(f"docs/results.md has no marks for {experiment.name}")
        page.write_text(marks.sub(lambda m: m[1] + (tables_by_type if experiment.by_type else table)(rows) + m[3], text))


if __name__ == "__main__":
    main()
