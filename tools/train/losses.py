# SPDX-License-Identifier: MIT
"""The loss of one sample: next token, reading of the patches, guided attention."""
import random

import torch
import torch.nn.functional as F

import generate
import pack
from model import CHARACTER_SLOTS, CLASSES, NEXT_LAYERS, WORD_LAYER, normalise, run_text, text_bias

SHORT_WEIGHT = 2.0


def reading_loss(model, visual, sample):
    """Characters and colour of each patch -> loss, share right; visual [patches, width]"""
    z = model.reading(visual).float().view(len(visual), CHARACTER_SLOTS + 1, CLASSES)
    labels = torch.from_numpy(sample.characters)
    letters = F.cross_entropy(z[:, :-1].transpose(1, 2), labels, reduction="none")
    filled = labels[:, :1] > 0
    weight = torch.where(filled, 1.0, 0.03).expand_as(letters)
    colour_weight = torch.ones(CLASSES)
    colour_weight[0] = 0.1
    colours = F.cross_entropy(z[:, -1], torch.from_numpy(sample.colours), weight=colour_weight)
    right = (z[:, :-1].argmax(-1) == labels).all(-1) & filled[:, 0]
    loss = (letters * weight).sum() / weight.sum() + 0.5 * colours
    return loss, right.sum().item() / max(1, filled.sum().item())


def guide_loss(tap, packed, spots, prefix, opening):
    """Pulls one head's attention to the known patches of a token; spots [T, 4], -1 unknown"""
    q, k = tap
    spots = torch.from_numpy(spots)
    rows = spots[:, 0] >= 0
    if not rows.any():
        return q.sum() * 0
    scores = (q[prefix:] @ k.T).float() * q.shape[-1] ** -0.5
    bias = text_bias(torch.from_numpy(packed["group"]))
    scores = torch.cat([scores[:, :prefix], scores[:, prefix:] + bias], 1)[rows]
    spots = spots[rows]
    wanted = scores.gather(1, spots.clamp(min=0) + opening)
    wanted = wanted.masked_fill(spots < 0, -1e9).logsumexp(-1)
    return (scores.logsumexp(-1) - wanted).mean()


def token_weights(packed):
    """Answers of short questions count more; [T]"""
    weight = torch.ones(len(packed["ids"]))
    for turn, _, first, last in packed["turns"]:
        if not turn.long:
            weight[first:last] = SHORT_WEIGHT
    return weight


def sample_of(stage, index):
    seed = generate.sample_seed("train", index)
    draw = {"reading": generate.draw_reading, "strips": generate.draw_strip}
    return draw.get(stage, generate.draw_sample)(seed)


def sample_loss(model, text, options, index):
    """-> loss, {name: number}"""
    sample, r = sample_of(options.stage, index), random.Random(~index)
    rows = sample.image.shape[0] // model.c.patch
    first_row = r.randint(0, model.c.columns - rows)
    visual = model.vision(normalise(sample.image), first_row, options.vision_scale == 0)
    loss, notes = 0.0, {}
    if options.reading:
        reading, notes["patches"] = reading_loss(model, visual, sample)
        loss = loss + reading * (1.0 if options.stage == "reading" else options.reading)
    if options.stage == "reading":
        return loss, notes
    share = options.conversations if options.stage == "full" else 0.0
    plans = pack.plan_conversations(r, sample.questions, sample.longs, share)
    packed = pack.pack(text, plans, sample.regions, options.tokens)
    taps = {i: [] for i in (WORD_LAYER, *NEXT_LAYERS)} if options.guide else None
    hidden = run_text(model, visual, text.opening, packed, taps)
    targets = torch.from_numpy(packed["targets"])
    counted = targets != pack.NOTHING
    z, targets = model.logits(hidden[counted]), targets[counted]
    weight = token_weights(packed)[counted]
    tokens = (F.cross_entropy(z, targets, reduction="none") * weight).sum() / weight.sum()
    notes["loss"] = tokens.item()
    notes["right"] = (z.argmax(-1) == targets).float().mean().item()
    if options.guide:
        opening = len(text.opening)
        prefix = opening + len(visual)
        pull = guide_loss(taps[WORD_LAYER][0], packed, packed["here"], prefix, opening)
        for layer in NEXT_LAYERS:
            tap = taps[layer][0]
            pull = pull + guide_loss(tap, packed, packed["after"], prefix, opening) / 2
        notes["guide"] = pull.item()
        loss = loss + options.guide * pull
    return loss + tokens, notes
