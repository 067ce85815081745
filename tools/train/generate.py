# SPDX-License-Identifier: MIT
"""Generated documents with questions: forms, tables, charts, shapes, pages.

`python generate.py OUT.png` writes a contact sheet.
"""
import random
import sys
from dataclasses import dataclass, field

import numpy as np

import documents
import pictures
import strips
from canvas import patch_colours

KINDS = ("form", "table", "chart", "shapes", "page")
MIX = (0.35, 0.25, 0.15, 0.15, 0.10)
DRAW = {
    "form": documents.draw_form,
    "table": documents.draw_table,
    "page": documents.draw_page,
    "chart": pictures.draw_chart,
    "shapes": pictures.draw_shapes,
}
HELD_OUT_OFFSET = 1 << 48


@dataclass
class Sample:
    """image uint8 [H, 336, 3]; questions and longs: lists of Turn (turns.py)"""

    kind: str
    image: np.ndarray
    characters: np.ndarray
    colours: np.ndarray
    regions: dict
    questions: list
    longs: list
    facts: dict = field(default_factory=dict)


def sample_seed(split, index):
    """Training seeds lie below 2^48, held-out seeds from 2^48 on."""
    if not 0 <= index < HELD_OUT_OFFSET:
        raise ValueError("index out of range")
    return index + {"train": 0, "held_out": HELD_OUT_OFFSET}[split]


def finish(r, kind, drawn):
    canvas, questions, longs, facts = drawn
    r.shuffle(questions)
    image = canvas.pixels()
    colours = patch_colours(image)
    return Sample(
        kind, image, canvas.characters, colours, canvas.regions, questions, longs, facts
    )


def draw_sample(seed, kind=None):
    """One full image 336 x 336; the kind is drawn from MIX when not given."""
    r = random.Random(seed)
    drawn_kind = r.choices(KINDS, MIX)[0]
    kind = kind or drawn_kind
    return finish(r, kind, DRAW[kind](r))


def draw_strip(seed):
    """One strip of 112 rows with few facts, for the first language stage."""
    r = random.Random(seed)
    kind = r.choices(tuple(strips.DRAW), (0.40, 0.20, 0.15, 0.25))[0]
    return finish(r, kind, strips.DRAW[kind](r))


def draw_reading(seed):
    """Mostly dense pages, for the reading stage of the vision part."""
    r = random.Random(seed)
    if r.random() < 0.6:
        return finish(r, "page", documents.draw_page(r, most=14))
    return draw_sample(r.getrandbits(47))


def main():
    from PIL import Image

    tiles = [draw_sample(sample_seed("train", i), k).image for i, k in enumerate(KINDS + ("form",))]
    rows = [np.concatenate(tiles[i : i + 3], 1) for i in (0, 3)]
    Image.fromarray(np.concatenate(rows)).save(sys.argv[1])


if __name__ == "__main__":
    main()
