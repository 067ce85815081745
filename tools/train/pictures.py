# SPDX-License-Identifier: MIT
"""Bar charts and labelled shapes. Each draw_* returns canvas, questions, longs, facts."""
import vocab
from canvas import SIDE, Canvas, text_width
from documents import any_face
from turns import Turn, long_turn


def chart_questions(r, title, labels, values, colours):
    n, asked = len(labels), []
    for label, value, colour in zip(labels, values, colours):
        what_value = Turn(f"What is the value of {label}?", str(value))
        what_colour = Turn(f"What colour is the {label} bar?", colour)
        asked.append(Turn(*pair(what_value), then=Turn("And its colour?", colour)))
        asked.append(Turn(*pair(what_colour), then=Turn("And its value?", str(value))))
    i = r.randrange(n)
    asked.append(Turn(f"Which bar is {colours[i]}?", labels[i]))
    asked.append(Turn("Which bar is the highest?", labels[values.index(max(values))]))
    asked.append(Turn("Which bar is the lowest?", labels[values.index(min(values))]))
    asked.append(Turn("How many bars are there?", str(n)))
    asked.append(Turn("What is the title?", title))
    return asked


def pair(turn):
    return turn.prompt, turn.answer


def draw_chart(r):
    canvas, face = Canvas(r), any_face(r)
    title = f"{r.choice(vocab.CHART_TITLES)} {r.randint(1990, 2029)}"
    canvas.text(r.randint(10, 120), r.randint(22, 36), title, face, 20)
    n = r.randint(3, 6)
    labels = r.sample(r.choice((vocab.CITIES, vocab.ITEMS, vocab.FIRST_NAMES)), n)
    values, colours = r.sample(range(5, 100), n), r.sample(vocab.COLOUR_NAMES, n)
    width, base = (SIDE - 20) / n, SIDE - 40
    canvas.draw.line((10, base, SIDE - 8, base), fill=canvas.ink, width=2)
    for i, (label, value, colour) in enumerate(zip(labels, values, colours)):
        left, top = 14 + i * width, base - value / 100 * 190
        centre = left + width * 0.475
        bar = (left + width * 0.2, top, left + width * 0.75, base - 1)
        canvas.draw.rectangle(bar, fill=vocab.COLOURS[colour])
        canvas.mark(colour, [(centre, base - 6), (centre, (base + top) / 2)])
        size = 14
        while text_width(label, face, size) > width + 2 and size > 11:
            size -= 1
        x = max(1, centre - text_width(label, face, size) / 2)
        canvas.text(x, base + (18 if i % 2 == 0 or n < 5 else 33), label, face, size)
        x = centre - text_width(str(value), face, 16) / 2
        canvas.text(x, top - 5, str(value), face, 16)
    said = " ".join(f"{a} is {v} with a {c} bar." for a, v, c in zip(labels, values, colours))
    high, low = (labels[values.index(f(values))] for f in (max, min))
    said = f"A bar chart titled {title} with {n} bars. {said} The highest is {high}."
    said += f" The lowest is {low}."
    facts = {"title": title, "bars": list(zip(labels, values, colours))}
    asked = chart_questions(r, title, labels, values, colours)
    return canvas, asked, [long_turn("Describe the image.", said)], facts


def label_word(r):
    if r.random() < 0.5:
        return vocab.made_up(r)
    return vocab.digits(r, r.randint(2, 4)) if r.random() < 0.6 else r.choice(vocab.ITEMS)


def draw_shape_cells(r, canvas, cells, sizes):
    """One labelled shape per cell (column, row) -> list of (name, label)"""
    chosen = r.sample([(c, s) for c in vocab.COLOUR_NAMES for s in vocab.SHAPE_NAMES], len(cells))
    face, found = any_face(r), []
    for (column, row), (colour, shape) in zip(cells, chosen):
        radius, label = r.randint(*sizes), label_word(r)
        while label in (known for _, known in found):
            label = label_word(r)
        cx = column * 112 + 56 + r.randint(-12, 12)
        cy = row * 112 + (46 if canvas.height == SIDE else 40) + r.randint(-6, 6)
        canvas.shape(shape, colour, cx, cy, radius)
        size = r.randint(15, 19)
        x = max(2, cx - text_width(label, face, size) / 2)
        canvas.text(x, cy + radius + size + 1, label, face, size)
        if canvas.height == SIDE:
            canvas.mark(place(column, row), [(cx, cy)])
        found.append((f"{colour} {shape}", label))
    return found


def place(column, row):
    return f"{vocab.ROWS[row]} {vocab.COLUMNS[column]}"


def shape_questions(found):
    asked = []
    for name, label in found:
        asked.append(Turn(f"What is the label of the {name}?", label))
        asked.append(Turn(f"What shape is labelled {label}?", name))
    return asked


def draw_shapes(r):
    canvas, n = Canvas(r), r.randint(2, 6)
    cells = r.sample([(a, b) for b in range(3) for a in range(3)], n)
    cells.sort(key=lambda cell: (cell[1], cell[0]))
    found = draw_shape_cells(r, canvas, cells, (20, 34))
    places = [place(*cell) for cell in cells]
    asked = shape_questions(found)
    i = r.randrange(n)
    then = Turn("And its label?", found[i][1])
    asked.append(Turn(f"Where is the {found[i][0]}?", places[i], then=then))
    i = r.randrange(n)
    asked.append(Turn(f"What is at the {places[i]}?", " ".join(found[i])))
    asked.append(Turn("How many shapes are there?", str(n)))
    said = " ".join(f"A {a} labelled {b} at the {p}." for (a, b), p in zip(found, places))
    longs = [long_turn("Describe the image.", f"{n} shapes. {said}")]
    facts = {"shapes": [(a, b, p) for (a, b), p in zip(found, places)]}
    return canvas, asked, longs, facts
