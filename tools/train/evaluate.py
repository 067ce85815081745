# SPDX-License-Identifier: MIT
"""Measures a GGUF pair on held-out data: `python evaluate.py --pair PAIR --data heldout.jsonl`.

A short answer counts when every token and the end of the answer is the most
likely one, which is what greedy decoding gives. In conversations the earlier
answers in the context are the true ones.
"""
import argparse
import collections
import itertools
import json
import os

import numpy as np
import torch
from PIL import Image

import pack
import pair
from model import normalise, run_text
from turns import Turn


def turns_of(line):
    said = line.get("turns") or [line]
    return [Turn(t["prompt"], t["answer"], line["type"] == "long") for t in said]


@torch.no_grad()
def right_tokens(model, text, visual, lines, batch=4):
    """Yields (line, number of the turn, bool array of the answer's tokens)"""
    for first in range(0, len(lines), batch):
        part = lines[first : first + batch]
        packed = pack.pack(text, [turns_of(line) for line in part], {}, 1 << 20)
        hidden = run_text(model, visual, text.opening, packed)
        right = model.logits(hidden).argmax(-1).numpy() == packed["targets"]
        for turn, number, begin, end in packed["turns"]:
            yield part[packed["group"][begin]], number, right[begin:end]


class Score:
    """Exact answers and right tokens."""

    def __init__(self):
        self.answers = self.exact = self.tokens = self.right = 0

    def add(self, right):
        self.answers += 1
        self.exact += bool(right.all())
        self.tokens += len(right)
        self.right += int(right.sum())

    def report(self):
        return {
            "answers": self.answers,
            "exact": round(self.exact / self.answers, 4),
            "token_accuracy": round(self.right / self.tokens, 4),
        }


def names_of(line, number):
    if line["type"] == "conversation":
        return ["conversation: first" if number == 0 else "conversation: follow-up"]
    if line["type"] == "long":
        return ["long", f"long: {line['kind']}"]
    return ["question", f"question: {line['kind']}"]


def evaluate(model, text, path, images=None):
    """-> {name: {answers, exact, token_accuracy}}"""
    with open(path) as source:
        lines = [json.loads(line) for line in source]
    scores, folder = collections.defaultdict(Score), os.path.dirname(path)
    groups = itertools.groupby(lines, key=lambda line: line["image"])
    for image, group in itertools.islice(groups, images):
        pixels = np.asarray(Image.open(os.path.join(folder, image)).convert("RGB"))
        with torch.no_grad():
            visual = model.vision(normalise(pixels))
        for line, number, right in right_tokens(model, text, visual, list(group)):
            for name in names_of(line, number):
                scores[name].add(right)
    return {name: scores[name].report() for name in sorted(scores)}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pair", required=True, help="folder or model file")
    p.add_argument("--data", required=True, help="JSONL of make_eval_data.py")
    p.add_argument("--images", type=int, help="only the first images")
    p.add_argument("--checkpoint", help="weights of a training run instead of the pair's")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--json", help="also write the numbers to this file")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    model, text = pair.load_pair(o.pair)
    if o.checkpoint:
        import store

        store.load_into(model, o.checkpoint)
    found = evaluate(model.eval(), text, o.data, o.images)
    for name, numbers in found.items():
        print(f"{name:26s} {numbers['answers']:5d} answers  exact {numbers['exact']:.3f}"
              f"  tokens {numbers['token_accuracy']:.3f}")
    if o.json:
        with open(o.json, "w") as out:
            json.dump(found, out, indent=1)


if __name__ == "__main__":
    main()
