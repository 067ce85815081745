# SPDX-License-Identifier: MIT
"""Puts several conversations about one image into one text sequence.

Conversations do not see each other and all start at the position behind the
image, so that training equals use; the image is computed once for all of them.
"""
import numpy as np

import canvas

NOTHING = -100
SPOTS = 4  # patches kept per token
ROUND = 64  # lengths are multiples of it: a new length costs new kernels, and their memory


def plan_conversations(r, questions, longs, share):
    """Lists of turns: with probability `share` conversations of 2 to 4 turns, else single turns."""
    waiting = list(longs) + list(questions)
    if r.random() >= share:
        return [[turn] for turn in waiting]
    r.shuffle(waiting)
    if longs and r.random() < 0.7:
        waiting.sort(key=lambda turn: not turn.long)
    plans = []
    while waiting:
        talk, length = [], r.randint(2, 4)
        while waiting and len(talk) < length:
            talk.append(waiting.pop(0))
            if talk[-1].then and len(talk) < length and r.random() < 0.3:
                talk.append(talk[-1].then)
        plans.append(talk)
    return plans


def spots_of(tokenizer, text, regions, in_order):
    """ids [n] and the patches of each token [n, SPOTS], -1 unknown"""
    encoded = tokenizer.encode(text)
    where = canvas.locate(regions, text, in_order)
    spots = np.full((len(encoded.ids), SPOTS), -1, np.int64)
    for i, (first, last) in enumerate(encoded.offsets):
        found = [where[c] for c in range(first, last) if where[c] >= 0 and text[c] != " "]
        kept = [p for j, p in enumerate(found) if j == 0 or p != found[j - 1]][:SPOTS]
        spots[i, : len(kept)] = kept
    return encoded.ids, spots


def pack_conversation(text, turns, regions):
    """One conversation -> ids, targets, spots, spans of the answers; input i predicts target i."""
    ids, learn, spots, spans = [], [], [], []

    def add(new, counted, where=None):
        ids.extend(new)
        learn.extend([counted] * len(new))
        spots.extend([[-1] * SPOTS] * len(new) if where is None else where.tolist())

    for number, turn in enumerate(turns):
        if number:
            add(text.reopening, False)
        asked, asked_at = spots_of(text.tokenizer, turn.prompt, regions, False)
        answer, answer_at = spots_of(text.tokenizer, turn.answer, regions, turn.long)
        add(asked, False, asked_at)
        add(text.middle, False)
        begin = len(ids) - 1
        add(answer, True, answer_at)
        add([text.end], True)
        spans.append((begin, len(ids) - 1))
    ids, learn, spots = np.array(ids), np.array(learn), np.array(spots)
    targets = np.where(learn, ids, NOTHING)[1:]
    here = spots[:-1]
    after = np.where(learn[1:, None], spots[1:], -1)
    return ids[:-1], targets, here, after, spans


def pack(text, plans, regions, limit):
    """Conversations that fit `limit` tokens -> dict of arrays.

    ids, targets, group, order [T]; here, after [T, SPOTS]: patches of the
    current and of the next (answer) token; turns: (turn, number in the
    conversation, first, last) of every answer.
    """
    parts, turns, used, group = [], [], 0, 0
    for plan in plans:
        ids, targets, here, after, spans = pack_conversation(text, plan, regions)
        n = len(ids)
        if used + n > limit:
            continue
        parts.append((ids, targets, np.full(n, group), np.arange(n), here, after))
        for number, (turn, (first, last)) in enumerate(zip(plan, spans)):
            turns.append((turn, number, used + first, used + last))
        used, group = used + n, group + 1
    names = ("ids", "targets", "group", "order", "here", "after")
    n = -used % ROUND  # a group of its own, which nothing is learnt from
    parts.append((
        np.zeros(n, np.int64), np.full(n, NOTHING), np.full(n, group), np.arange(n),
        np.full((n, SPOTS), -1), np.full((n, SPOTS), -1),
    ))
    packed = {k: np.concatenate(v) for k, v in zip(names, zip(*parts))}
    packed["turns"] = turns
    return packed
