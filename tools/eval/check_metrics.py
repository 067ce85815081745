# SPDX-License-Identifier: MIT
"""A table of random texts with what independent implementations say of them.

Lines: {"prediction", "answers", "rouge_l", "anls", "exact_match", "relaxed_accuracy"}. rouge_l is that of the PyPI
package rouge-score without stemming (against the first answer); anls follows the DocVQA evaluation, with the
Levenshtein distance of PyPI's rapidfuzz; relaxed_accuracy is ChartQA's formula. tests/eval/metrics_test.cpp compares
every line with ours. tests/data/eval/metrics.jsonl is `check_metrics.py --n 300 --seed 1`; for another table:

    check_metrics.py --n 20000 --seed 7 -o table.jsonl && KVSIEVE_METRIC_TABLE=table.jsonl eval_tests
"""
import argparse
import json
import random

from rapidfuzz.distance import Levenshtein
from rouge_score import rouge_scorer

WORDS = "the The total name is Ångström naïve ΔΕΛΤΑ ПРИВЕТ 東京 İstanbul \u212aelvin cell-phone don't 3rd x_y _".split()
SPACES = [" ", "  ", "\t", "\n", "\u00a0", "\u3000", " , ", ". "]
NUMBERS = ["0", "12", "12.5", "12.6", "-3", "+3", "1_000", "1__0", "1,000", "$5", "5%", "5.2%", "0.05", "1e3", "1E3",
           ".5", "5.", "inf", "-inf", "nan", "1e400", "1e-400", "0x10", "%", "5%%", "5 %", "12 kg", "--3", "+-3", "e5"]


def some_text(r):
    if r.random() < 0.4:
        number = r.choice(NUMBERS) if r.random() < 0.5 else f"{r.uniform(-50, 50):.{r.randint(0, 4)}f}"
        return r.choice(["", "", " ", "\n"]) + number + r.choice(["", "", "%", " "])
    return "".join(r.choice(WORDS) + r.choice(SPACES) for _ in range(r.randint(0, 9)))


def changed(r, text):
    """The text with a few letters replaced, removed, or in the other case."""
    out = list(text)
    for _ in range(r.randint(0, 3)):
        if not out:
            break
        i = r.randrange(len(out))
        out[i] = r.choice([out[i].swapcase() if out[i] not in "İ\u212a" else out[i], "", "z", "é", " "])
    return "".join(out)


def lower(text):
    """str.lower() code point by code point, which is what our tables give (src/eval/unicode.h)."""
    return "".join(c.lower() if c != "İ" else "i" for c in text)


def anls(prediction, answers):
    """DocVQA's evaluation, per question."""
    best = 0.0
    for answer in answers:
        gt = " ".join(lower(answer.strip()).split())
        det = " ".join(lower(prediction.strip()).split())
        length = max(len(gt), len(det))
        value = 0.0 if length == 0 else float(Levenshtein.distance(gt, det)) / float(length)
        best = max(best, 1 - value if value < 0.5 else 0.0)
    return best


def exact_match(prediction, answers):
    return float(any(" ".join(lower(prediction).split()) == " ".join(lower(a).split()) for a in answers))


def to_float(text):
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_correctness(target, prediction, max_relative_change=0.05):
    """ChartQA's formula as pix2struct and the evaluation harnesses have it."""
    prediction_float, target_float = to_float(prediction), to_float(target)
    if prediction_float is not None and target_float:
        return abs(prediction_float - target_float) / abs(target_float) <= max_relative_change
    return lower(prediction) == lower(target)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--n", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--out", required=True)
    o = p.parse_args()
    r, scorer = random.Random(o.seed), rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    with open(o.out, "w", encoding="utf-8") as out:
        for _ in range(o.n):
            answers = [some_text(r) for _ in range(r.randint(1, 3))]
            prediction = changed(r, r.choice(answers)) if r.random() < 0.7 else some_text(r)
            relaxed = any(relaxed_correctness(a.strip(), prediction.strip()) for a in answers)
            out.write(json.dumps({
                "prediction": prediction,
                "answers": answers,
                "rouge_l": scorer.score(answers[0], prediction)["rougeL"].fmeasure,
                "anls": anls(prediction, answers),
                "exact_match": exact_match(prediction, answers),
                "relaxed_accuracy": float(relaxed),
            }) + "\n")


if __name__ == "__main__":
    main()
