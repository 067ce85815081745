# SPDX-License-Identifier: MIT
"""A drawing surface that remembers in which image patch everything lies."""
import functools
import os
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vocab

SIDE, PATCH = 336, 14
COLUMNS = SIDE // PATCH
SLOTS = 3
CHARACTER_CLASS = {c: i + 1 for i, c in enumerate(vocab.CHARACTERS)}
PALETTE = np.array([vocab.COLOURS[n] for n in vocab.COLOUR_NAMES], np.int16)


@functools.lru_cache(maxsize=None)
def load_face(face, size):
    """(font, advance of each character, x-height)"""
    for folder in vocab.FONT_FOLDERS:
        path = os.path.join(folder, vocab.FONTS[face])
        if os.path.exists(path):
            break
    else:
        raise FileNotFoundError(f"{vocab.FONTS[face]}: install the DejaVu and Liberation fonts")
    font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    advance = {c: font.getlength(c) for c in vocab.CHARACTERS + " "}
    return font, advance, -font.getbbox("x", anchor="ls")[1]


def text_width(text, face, size):
    advance = load_face(face, size)[1]
    return sum(advance[c] for c in text)


class Canvas:
    """image, characters per patch, and for each drawn name the patches it covers.

    characters [patches, 3]: classes of the first characters whose centre lies
    in the patch (0 none). regions: text -> list of occurrences, each a patch
    per character.
    """

    def __init__(self, r, height=SIDE):
        self.height = height
        self.image = Image.new("RGB", (SIDE, height), r.choice(vocab.PAPERS))
        self.draw = ImageDraw.Draw(self.image)
        self.draw.fontmode = "L"
        self.ink = r.choice(vocab.INKS)
        self.characters = np.zeros((height // PATCH * COLUMNS, SLOTS), np.int64)
        self.regions = {}

    def patch_at(self, x, y):
        row = min(self.height // PATCH - 1, max(0, int(y // PATCH)))
        return row * COLUMNS + min(COLUMNS - 1, max(0, int(x // PATCH)))

    def text(self, x, baseline, text, face, size, colour=None):
        """Draws the text, returns where the next character would start."""
        font, advance, x_height = load_face(face, size)
        x, baseline = int(x), int(baseline)
        self.draw.text((x, baseline), text, font=font, fill=colour or self.ink, anchor="ls")
        middle = baseline - x_height / 2 - 1
        inside = 0 <= middle < self.height
        where, end = [], float(x)
        for c in text:
            centre = end + advance[c] / 2
            end += advance[c]
            patch = self.patch_at(centre, middle)
            where.append(patch)
            if c != " " and inside and 0 <= centre < SIDE:
                free = np.flatnonzero(self.characters[patch] == 0)
                if len(free):
                    self.characters[patch, free[0]] = CHARACTER_CLASS[c]
        name = text.rstrip(" :")
        if inside:
            self.regions.setdefault(name, []).append(where[: len(name)])
        return end

    def mark(self, name, points):
        """Notes that the name is seen at the points, spread over its characters."""
        patches = [self.patch_at(x, y) for x, y in points]
        spread = [patches[i * len(patches) // len(name)] for i in range(len(name))]
        self.regions.setdefault(name, []).append(spread)

    def shape(self, kind, colour, cx, cy, radius):
        fill = vocab.COLOURS[colour]
        if kind == "circle":
            self.draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=fill)
        elif kind == "square":
            self.draw.rectangle((cx - radius, cy - radius, cx + radius, cy + radius), fill=fill)
        elif kind == "triangle":
            corners = [(cx, cy - radius), (cx + radius, cy + radius), (cx - radius, cy + radius)]
            self.draw.polygon(corners, fill=fill)
        elif kind == "diamond":
            corners = [(cx, cy - radius), (cx + radius, cy), (cx, cy + radius), (cx - radius, cy)]
            self.draw.polygon(corners, fill=fill)
        else:
            arm = radius * 0.35
            self.draw.rectangle((cx - arm, cy - radius, cx + arm, cy + radius), fill=fill)
            self.draw.rectangle((cx - radius, cy - arm, cx + radius, cy + arm), fill=fill)
        off = radius * 0.4
        self.mark(f"{colour} {kind}", [(cx, cy), (cx - off, cy), (cx + off, cy), (cx, cy)])

    def pixels(self):
        """uint8 [height, 336, 3]"""
        return np.asarray(self.image)


def patch_colours(pixels):
    """[patches]: 1 + index of the named colour at the centre of each patch, 0 none"""
    centres = pixels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3).astype(np.int16)
    distance = np.abs(centres[:, None] - PALETTE).sum(-1)
    return np.where(distance.min(1) <= 6, distance.argmin(1) + 1, 0)


def locate(regions, text, in_order):
    """Patch of each character of the text, -1 where unknown.

    in_order: the n-th mention of a name is its n-th occurrence in the image
    (long answers); otherwise always the first.
    """
    where = [-1] * len(text)
    names = sorted((n for n in regions if n and n in text), key=len, reverse=True)
    if not names:
        return where
    pattern = "|".join(map(re.escape, names))
    seen = {}
    for found in re.finditer(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", text):
        name = found.group(0)
        turn = seen.get(name, 0) if in_order else 0
        seen[name] = turn + 1
        places = regions[name]
        for i, patch in enumerate(places[min(turn, len(places) - 1)]):
            where[found.start() + i] = patch
    return where
