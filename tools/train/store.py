# SPDX-License-Identifier: MIT
"""The state of a training run as flat shared buffers, and its checkpoints."""
import os

import torch

BUFFERS = ("weights", "average", "first", "second")
CHECKPOINT = "checkpoint.pt"


def places(model):
    """{name: slice of the flat buffers}"""
    found, at = {}, 0
    for name, p in model.named_parameters():
        found[name] = slice(at, at + p.numel())
        at += p.numel()
    return found


def flat_state(model):
    """Buffers of one number per weight, visible to all processes."""
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    flat = {name: torch.zeros_like(weights) for name in BUFFERS}
    flat["weights"], flat["average"] = weights, weights.clone()
    return {name: t.share_memory_() for name, t in flat.items()}


def bind(model, weights, grads):
    """The parameters and their gradients become views of the buffers."""
    where = places(model)
    for name, p in model.named_parameters():
        p.data = weights[where[name]].view(p.shape)
        p.grad = grads[where[name]].view(p.shape)


def save(folder, flat, state):
    path = os.path.join(folder, CHECKPOINT)
    torch.save({**flat, **state}, path + ".new")
    os.replace(path + ".new", path)


def resume(folder, flat):
    """Fills the buffers from the newest checkpoint -> its state, or None"""
    path = os.path.join(folder, CHECKPOINT)
    if not os.path.exists(path):
        return None
    saved = torch.load(path, weights_only=True)
    for name in BUFFERS:
        flat[name].copy_(saved.pop(name))
    return saved


def load_into(model, path, averaged=True):
    saved = torch.load(path, weights_only=True)
    bind_weights = saved["average" if averaged else "weights"]
    where = places(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(bind_weights[where[name]].view(p.shape))
