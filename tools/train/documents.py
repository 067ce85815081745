# SPDX-License-Identifier: MIT
"""Forms, tables and pages of text. Each draw_* returns canvas, questions, longs, facts."""
import vocab
from canvas import SIDE, Canvas, text_width
from turns import Turn, long_turn

SEPARATORS = (": ", ": ", ":   ")


def any_face(r):
    return r.randrange(len(vocab.FONTS))


def draw_fields(r, canvas, names, values, top):
    """Lines `name: value` from the top to the bottom of the canvas."""
    face, size = any_face(r), r.randint(14, 19)
    value_face = any_face(r) if r.random() < 0.3 else face
    separator, step = r.choice(SEPARATORS), (canvas.height - 6 - top) / len(names)
    two_columns, stop = r.random() < 0.25, r.randint(110, 150)
    aligned, indent = r.random() < 0.4, r.randint(6, 50)
    for i, (name, value) in enumerate(zip(names, values)):
        baseline = top + step * i + r.uniform(size + 1, max(size + 2, step - 3))
        if two_columns:
            canvas.text(10, baseline, name + ":", face, size)
            x = max(stop, 10 + text_width(name + ": ", face, size))
            x = min(x, SIDE - 3 - text_width(value, value_face, size))
        else:
            width = text_width(name + separator, face, size) + text_width(value, value_face, size)
            room = int(SIDE - 4 - width)
            x = max(2, min(indent, room) if aligned else r.randint(4, max(5, room)))
            x = canvas.text(x, baseline, name + separator, face, size)
        canvas.text(x, baseline, value, value_face, size)


def field_question(r, name):
    if r.random() < 0.6:
        return f"What is the {name}?"
    return r.choice((f"What is the {name}?", f"{name}?", f"Find the {name}."))


def form_questions(r, title, names, values):
    n = len(names)
    asked = []
    for i, (name, value) in enumerate(zip(names, values)):
        other = (i + r.randrange(1, n)) % n
        then = Turn(f"And the {names[other]}?", values[other])
        asked.append(Turn(field_question(r, name), value, then=then))
    for i in r.sample(range(n), 2):
        if values.count(values[i]) == 1:
            asked.append(Turn(f"Which field has the value {values[i]}?", names[i]))
    i = r.randrange(min(n, len(vocab.ORDINALS)))
    asked.append(Turn(f"Read the {vocab.ORDINALS[i]} field.", f"{names[i]}: {values[i]}"))
    i = r.randrange(n - 1)
    after = f"{names[i + 1]}: {values[i + 1]}"
    then = Turn("And what comes next?", f"{names[i + 2]}: {values[i + 2]}") if i + 2 < n else None
    asked.append(Turn(f"What comes after {names[i]}?", after, then=then))
    asked.append(Turn("What is the title?", title))
    asked.append(Turn("How many fields are there?", str(n)))
    return asked


def draw_form(r):
    canvas = Canvas(r)
    title, face, size = r.choice(vocab.DOCUMENT_TITLES), any_face(r), r.randint(20, 26)
    y = r.randint(24, 40)
    x = r.randint(6, max(7, int(SIDE - 10 - text_width(title, face, size))))
    canvas.text(x, y, title, face, size, vocab.COLOURS[r.choice(vocab.TITLE_COLOURS)])
    if r.random() < 0.5:
        canvas.draw.line((8, y + 8, SIDE - 8, y + 8), fill=canvas.ink, width=1)
    names = r.sample(vocab.FIELD_NAMES, r.randint(5, 10))
    values = [vocab.FIELDS[name](r) for name in names]
    draw_fields(r, canvas, names, values, y + 10)
    lines = [f"{name}: {value}" for name, value in zip(names, values)]
    said = " ".join(f"The {name} is {value}." for name, value in zip(names, values))
    longs = [
        long_turn("Transcribe the text.", "\n".join([title] + lines)),
        long_turn("Describe the image.", f"A {title} with {len(names)} fields. {said}"),
    ]
    facts = {"title": title, "fields": dict(zip(names, values))}
    return canvas, form_questions(r, title, names, values), [r.choice(longs)], facts


def table_questions(r, title, items, counts, prices, total):
    n = len(items)
    asked = []
    for i in range(n):
        price = Turn(f"What is the price of {items[i]}?", prices[i])
        count = Turn(f"How many {items[i]}?", counts[i])
        asked.append(Turn(price.prompt, price.answer, then=Turn("And how many?", counts[i])))
        asked.append(Turn(count.prompt, count.answer, then=Turn("And the price?", prices[i])))
    i = r.randrange(n)
    if prices.count(prices[i]) == 1:
        asked.append(Turn(f"Which item costs {prices[i]}?", items[i]))
    i = r.randrange(n)
    asked.append(Turn(f"Read row {i + 1}.", f"{items[i]} {counts[i]} {prices[i]}"))
    i = r.randrange(n - 1)
    then = Turn("And below that?", items[i + 2]) if i + 2 < n else None
    asked.append(Turn(f"Which item is below {items[i]}?", items[i + 1], then=then))
    asked.append(Turn("How many rows are there?", str(n)))
    asked.append(Turn("What is the title?", title))
    if total:
        asked.append(Turn("What is the total?", total))
    return asked


def draw_table(r):
    canvas = Canvas(r)
    title, face, size = r.choice(vocab.DOCUMENT_TITLES), any_face(r), r.randint(14, 18)
    y = r.randint(22, 36)
    canvas.text(r.randint(6, 120), y, title, any_face(r), 20)
    n = r.randint(4, 9)
    items = r.sample(vocab.ITEMS, n)
    counts = [str(r.randint(1, 99)) for _ in items]
    prices = [vocab.money(r) for _ in items]
    stops = [r.randint(6, 24)]
    stops.append(stops[0] + r.randint(112, 130))
    stops.append(stops[1] + r.randint(58, 75))
    pitch = min(34, (SIDE - y - 24) // (n + 2))

    def row(y, cells):
        for x, cell in zip(stops, cells):
            if cell:
                canvas.text(x, y, cell, face, size)

    y += pitch + 4
    row(y, ("Item", "Qty", "Price"))
    ruled = r.random() < 0.6
    if ruled:
        canvas.draw.line((stops[0] - 3, y + 5, SIDE - 6, y + 5), fill=canvas.ink)
    for cells in zip(items, counts, prices):
        y += pitch
        row(y, cells)
    total = None
    if y + pitch < SIDE - 3 and r.random() < 0.7:
        y, total = y + pitch, vocab.money(r)
        row(y, ("Total", None, total))
        if ruled:
            canvas.draw.line((stops[0] - 3, y - size - 2, SIDE - 6, y - size - 2), fill=canvas.ink)
    lines = [f"{a} {b} {c}" for a, b, c in zip(items, counts, prices)]
    lines = [title, "Item Qty Price"] + lines + ([f"Total {total}"] if total else [])
    said = " ".join(f"{a}: {b} for {c}." for a, b, c in zip(items, counts, prices))
    said = f"A table titled {title} with {n} rows. {said}"
    said += f" The total is {total}." if total else ""
    longs = [
        long_turn("Transcribe the text.", "\n".join(lines)),
        long_turn("Describe the image.", said),
    ]
    facts = {"title": title, "rows": list(zip(items, counts, prices)), "total": total}
    asked = table_questions(r, title, items, counts, prices, total)
    return canvas, asked, [r.choice(longs)], facts


def draw_page(r, most=None, height=SIDE):
    """Lines of mixed words; fonts and sizes change from line to line."""
    canvas = Canvas(r, height)
    most = most or r.randint(3, 9)
    face, y, lines = any_face(r), r.randint(2, 24), []
    while len(lines) < most:
        if r.random() < 0.4:
            face = any_face(r)
        size = r.randint(13, 22)
        y += size
        if y > height - 4:
            break
        x, line = r.randint(3, 40), ""
        while True:
            longer = f"{line} {vocab.any_word(r)}".lstrip()
            if x + text_width(longer, face, size) > SIDE - 3:
                break
            line = longer
            if r.random() < 0.08:
                break
        if line:
            canvas.text(x, y, line, face, size)
            lines.append(line)
        y += r.randint(3, 12)
    asked = []
    for i in r.sample(range(len(lines)), min(4, len(lines))):
        then = Turn("Read the next line.", lines[i + 1]) if i + 1 < len(lines) else None
        asked.append(Turn(f"Read line {i + 1}.", lines[i], then=then))
    longs = [long_turn("Transcribe the text.", "\n".join(lines))]
    return canvas, asked, longs, {"lines": lines}
