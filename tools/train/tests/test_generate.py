# SPDX-License-Identifier: MIT
"""Tests of the generator: deterministic, true to what is drawn, held-out apart from training."""
import pathlib
import random
import sys
import tempfile
import unittest

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import canvas
import generate
import make_eval_data
import pack
import vocab


def samples(kind, count=12):
    return [generate.draw_sample(generate.sample_seed("train", i), kind) for i in range(count)]


def answers(sample):
    return {turn.prompt: turn.answer for turn in sample.questions}


class Seeds(unittest.TestCase):
    def test_same_seed_same_sample(self):
        for i in range(10):
            a, b = (generate.draw_sample(generate.sample_seed("train", i)) for _ in range(2))
            self.assertTrue(np.array_equal(a.image, b.image))
            self.assertEqual((a.questions, a.longs), (b.questions, b.longs))

    def test_held_out_seeds_are_disjoint(self):
        last = generate.HELD_OUT_OFFSET - 1
        self.assertLess(generate.sample_seed("train", last), generate.sample_seed("held_out", 0))
        for index in (-1, generate.HELD_OUT_OFFSET):
            with self.assertRaises(ValueError):
                generate.sample_seed("train", index)

    def test_held_out_facts_differ(self):
        facts = [
            repr(generate.draw_sample(generate.sample_seed(split, i)).facts)
            for split in ("train", "held_out")
            for i in range(100)
        ]
        self.assertEqual(len(set(facts)), len(facts))

    def test_mix(self):
        seeds = [generate.sample_seed("held_out", i) for i in range(4000)]
        kinds = [random.Random(s).choices(generate.KINDS, generate.MIX)[0] for s in seeds]
        for kind, share in zip(generate.KINDS, generate.MIX):
            self.assertAlmostEqual(kinds.count(kind) / 4000, share, delta=0.03)


class Answers(unittest.TestCase):
    def test_form(self):
        for s in samples("form"):
            fields = s.facts["fields"]
            self.assertEqual(answers(s)["How many fields are there?"], str(len(fields)))
            for prompt, answer in answers(s).items():
                name = prompt.removeprefix("What is the ").removesuffix("?")
                if name in fields:
                    self.assertEqual(answer, fields[name])
            for name, value in fields.items():
                self.assertIn(name, s.longs[0].answer)
                self.assertIn(value, s.longs[0].answer)

    def test_table(self):
        for s in samples("table"):
            said = answers(s)
            for item, count, price in s.facts["rows"]:
                self.assertEqual(said[f"What is the price of {item}?"], price)
                self.assertEqual(said[f"How many {item}?"], count)

    def test_chart(self):
        for s in samples("chart"):
            said = answers(s)
            bars = s.facts["bars"]
            self.assertEqual(said["Which bar is the highest?"], max(bars, key=lambda b: b[1])[0])
            self.assertEqual(said["Which bar is the lowest?"], min(bars, key=lambda b: b[1])[0])
            for label, value, colour in bars:
                self.assertEqual(said[f"What is the value of {label}?"], str(value))
                self.assertEqual(said[f"What colour is the {label} bar?"], colour)

    def test_shapes(self):
        for s in samples("shapes"):
            said = answers(s)
            for name, label, place in s.facts["shapes"]:
                self.assertEqual(said[f"What is the label of the {name}?"], label)
                self.assertEqual(said[f"What shape is labelled {label}?"], name)
                self.assertIn(said.get(f"Where is the {name}?", place), place)

    def test_page(self):
        for s in samples("page"):
            for prompt, answer in answers(s).items():
                number = int(prompt.removeprefix("Read line ").removesuffix("."))
                self.assertEqual(answer, s.facts["lines"][number - 1])

    def test_prompts_are_unambiguous(self):
        for kind in generate.KINDS:
            for s in samples(kind, 40):
                seen = {}
                for turn in s.questions:
                    self.assertEqual(seen.setdefault(turn.prompt, turn.answer), turn.answer)

    def test_follow_ups(self):
        found = [t for k in generate.KINDS for s in samples(k) for t in s.questions if t.then]
        self.assertTrue(found)
        for turn in found:
            self.assertTrue(turn.then.prompt and turn.then.answer)


class Drawing(unittest.TestCase):
    def test_characters_where_ink_is(self):
        for s in samples("page", 4):
            patches = s.image.reshape(24, 14, 24, 14, 3).transpose(0, 2, 1, 3, 4).reshape(576, -1)
            inked = patches.std(1) > 1
            written = s.characters[:, 0] > 0
            self.assertGreater((inked & written).sum(), 0.98 * written.sum())

    def test_colours(self):
        s = samples("chart", 1)[0]
        seen = {vocab.COLOUR_NAMES[c - 1] for c in s.colours if c}
        self.assertTrue({colour for _, value, colour in s.facts["bars"] if value > 25} <= seen)

    def test_locate(self):
        regions = {"Total": [[3, 3, 4, 4, 4], [7, 7, 8, 8, 8]]}
        where = canvas.locate(regions, "Total: Total", True)
        self.assertEqual(where, [3, 3, 4, 4, 4, -1, -1, 7, 7, 8, 8, 8])

    def test_png_keeps_pixels(self):
        with tempfile.TemporaryDirectory() as folder:
            for s in (f for kind in generate.KINDS for f in samples(kind, 2)):
                path = f"{folder}/a.png"
                make_eval_data.save_png(s.image, path)
                read = np.asarray(Image.open(path).convert("RGB"))
                self.assertTrue(np.array_equal(read, s.image))


class Conversations(unittest.TestCase):
    def test_lengths(self):
        r = random.Random(3)
        for s in samples("form", 20):
            singles = pack.plan_conversations(r, s.questions, s.longs, 0)
            self.assertTrue(all(len(p) == 1 for p in singles))
            plans = pack.plan_conversations(r, s.questions, s.longs, 1)
            self.assertTrue(all(1 <= len(p) <= 4 for p in plans))
            asked = {t for p in plans for t in p}
            self.assertTrue(set(s.questions) <= asked)

    def test_held_out_lines(self):
        pixels, lines = make_eval_data.lines_of(5, 3)
        self.assertEqual(pixels.shape, (336, 336, 3))
        self.assertEqual(len({line["id"] for line in lines}), len(lines))
        self.assertIn("long", [line["type"] for line in lines])


if __name__ == "__main__":
    unittest.main()
