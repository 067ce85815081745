# SPDX-License-Identifier: MIT
"""Small versions of the documents on strips of 112 rows, for the first language stage."""
import vocab
from canvas import Canvas
from documents import any_face, draw_fields, draw_page
from pictures import draw_shape_cells, shape_questions
from turns import Turn, long_turn

HEIGHT = 112


def draw_form(r):
    canvas = Canvas(r, HEIGHT)
    names = r.sample(vocab.FIELD_NAMES, r.randint(1, 4))
    values = [vocab.FIELDS[name](r) for name in names]
    draw_fields(r, canvas, names, values, 2)
    asked = [Turn(f"What is the {name}?", value) for name, value in zip(names, values)]
    i = r.randrange(len(names))
    if values.count(values[i]) == 1:
        asked.append(Turn(f"Which field has the value {values[i]}?", names[i]))
    asked.append(Turn("How many fields are there?", str(len(names))))
    lines = "\n".join(f"{name}: {value}" for name, value in zip(names, values))
    facts = {"fields": dict(zip(names, values))}
    return canvas, asked, [long_turn("Transcribe the text.", lines)], facts


def draw_table(r):
    canvas, face, size = Canvas(r, HEIGHT), any_face(r), r.randint(14, 18)
    n = r.randint(2, 4)
    items = r.sample(vocab.ITEMS, n)
    counts, prices = [str(r.randint(1, 99)) for _ in items], [vocab.money(r) for _ in items]
    first = r.randint(6, 24)
    second = first + r.randint(112, 130)
    stops = (first, second, second + r.randint(58, 75))
    pitch = (HEIGHT - 6) // n
    y = r.randint(size, pitch)
    asked, lines = [], []
    for i, cells in enumerate(zip(items, counts, prices)):
        for x, cell in zip(stops, cells):
            canvas.text(x, y + i * pitch, cell, face, size)
        asked.append(Turn(f"What is the price of {cells[0]}?", cells[2]))
        asked.append(Turn(f"How many {cells[0]}?", cells[1]))
        lines.append(" ".join(cells))
    i = r.randrange(n)
    asked.append(Turn(f"Read row {i + 1}.", lines[i]))
    facts = {"rows": list(zip(items, counts, prices))}
    return canvas, asked, [long_turn("Transcribe the text.", "\n".join(lines))], facts


def draw_shapes(r):
    canvas = Canvas(r, HEIGHT)
    cells = sorted(r.sample([(a, 0) for a in range(3)], r.randint(1, 3)))
    found = draw_shape_cells(r, canvas, cells, (20, 30))
    said = " ".join(f"A {name} labelled {label}." for name, label in found)
    longs = [long_turn("Describe the image.", f"{len(found)} shapes. {said}")]
    return canvas, shape_questions(found), longs, {"shapes": found}


def draw_lines(r):
    drawn = draw_page(r, r.randint(1, 4), HEIGHT)
    return drawn if drawn[3]["lines"] else draw_lines(r)


DRAW = {"form": draw_form, "table": draw_table, "shapes": draw_shapes, "page": draw_lines}
