# SPDX-License-Identifier: MIT
"""Writes the image splits of data/: calibration, development, final.

Needs the packages of tools/train/requirements.txt without torch, and the fonts
that tools/train/README.md names. The embedded model's tokenizer counts the
tokens of descriptions; those outside of DESCRIPTION_TOKENS are left out.
"""
import argparse
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "train"))

import make_eval_data  # noqa: E402
import tokenizer  # noqa: E402

# name: (first held-out index, images). Other users of held-out indices: 0 to 249 (the accuracy in
# models/README.md) and 100000 to 100059 (tests/data/heldout).
SPLITS = {
    "calibration": (200_000, 24),
    "development": (300_000, 40),
    "final": (400_000, 220),
}
QUESTIONS = 5  # at most, of an image
DESCRIPTION_TOKENS = range(60, 201)
MODEL = os.path.join(ROOT, "models", "kvsieve-tiny-model-f16.gguf")


def wanted(line, text):
    return line["type"] != "long" or len(text.encode(line["answer"])) in DESCRIPTION_TOKENS


def write_split(folder, name, text):
    first, n_images = SPLITS[name]
    os.makedirs(folder, exist_ok=True)
    counts = {"question": 0, "long": 0, "conversation": 0}
    with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as out:
        for index in range(first, first + n_images):
            pixels, lines = make_eval_data.lines_of(index, QUESTIONS)
            make_eval_data.save_png(pixels, os.path.join(folder, lines[0]["image"]))
            for line in filter(lambda found: wanted(found, text), lines):
                out.write(json.dumps(line) + "\n")
                counts[line["type"]] += 1
    print(name, f"{n_images} images,", ", ".join(f"{n} {kind}s" for kind, n in counts.items()))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", nargs="?", default=os.path.join(ROOT, "data"))
    p.add_argument("--split", choices=sorted(SPLITS), action="append", help="only this one; may be repeated")
    o = p.parse_args()
    from gguf import GGUFReader

    text = tokenizer.Text(tokenizer.read(GGUFReader(MODEL)))
    for name in o.split or SPLITS:
        write_split(os.path.join(o.folder, name), name, text)


if __name__ == "__main__":
    main()
