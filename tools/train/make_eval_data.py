# SPDX-License-Identifier: MIT
"""Writes held-out images with questions: a JSONL file and PNG files beside it.

Lines: {"id", "image", "prompt", "answer", "kind", "type"} with type "question"
or "long"; conversations have "turns": [{"prompt", "answer"}, ...] instead of
prompt and answer, and type "conversation". Image paths are relative to the file.
"""
import argparse
import json
import os
import random

from PIL import Image

import generate
import pack


def save_png(pixels, path):
    """Palette PNG where that keeps every pixel, else RGB."""
    image = Image.fromarray(pixels)
    colours = image.getcolors(256)
    if colours:
        octree = Image.Quantize.FASTOCTREE
        small = image.quantize(len(colours), octree, dither=Image.Dither.NONE)
        palette = Image.new("P", (1, 1))
        flat = [v for _, colour in colours for v in colour]
        palette.putpalette(flat + flat[:3] * (256 - len(colours)))
        exact = image.quantize(palette=palette, dither=Image.Dither.NONE)
        for candidate in (small, exact):
            if candidate.convert("RGB").tobytes() == image.tobytes():
                image = candidate
                break
    image.save(path, optimize=True)


def said(turn):
    return {"prompt": turn.prompt, "answer": turn.answer}


def conversation(r, sample):
    """Turns of one conversation of 2 to 4 questions, or None"""
    plans = pack.plan_conversations(r, sample.questions, [], 1.0)
    plans = [plan for plan in plans if len(plan) > 1]
    return r.choice(plans) if plans else None


def lines_of(index, questions, conversations=True):
    """-> pixels, list of lines of the held-out image `index`"""
    seed = generate.sample_seed("held_out", index)
    sample, r = generate.draw_sample(seed), random.Random(seed + 1)
    name = f"{index:05d}-{sample.kind}"
    base = {"image": name + ".png", "kind": sample.kind}
    found = []
    for i, turn in enumerate(sample.questions[:questions]):
        found.append({"id": f"{name}-q{i}", "type": "question", **said(turn)})
    for turn in sample.longs:
        found.append({"id": f"{name}-long", "type": "long", **said(turn)})
    talk = conversation(r, sample) if conversations else None
    if talk:
        turns = [said(turn) for turn in talk]
        found.append({"id": f"{name}-talk", "type": "conversation", "turns": turns})
    return sample.image, [{**line, **base} for line in found]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder")
    p.add_argument("--images", type=int, default=250)
    p.add_argument("--first", type=int, default=0, help="first held-out index")
    p.add_argument("--questions", type=int, default=5)
    p.add_argument("--no-conversations", action="store_true")
    o = p.parse_args()
    os.makedirs(o.folder, exist_ok=True)
    with open(os.path.join(o.folder, "heldout.jsonl"), "w") as out:
        for index in range(o.first, o.first + o.images):
            pixels, lines = lines_of(index, o.questions, not o.no_conversations)
            save_png(pixels, os.path.join(o.folder, lines[0]["image"]))
            for line in lines:
                out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
