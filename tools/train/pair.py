# SPDX-License-Identifier: MIT
"""Names of the weights in the GGUF pair; reads a pair into the model."""
import os

import numpy as np
import torch

import tokenizer as tokenizer_module
from model import Shape, TinyLlava

MODEL_FILE = "kvsieve-tiny-model-f16.gguf"
MMPROJ_FILE = "kvsieve-tiny-mmproj-f16.gguf"


def decoder_names(c):
    """(name in the GGUF, name in the model)"""
    yield "token_embd.weight", "decoder.embedding.weight"
    yield "output_norm.weight", "decoder.norm.weight"
    parts = (
        ("attn_norm", "norm1"),
        ("ffn_norm", "norm2"),
        ("attn_q", "q"),
        ("attn_k", "k"),
        ("attn_v", "v"),
        ("attn_output", "out"),
        ("ffn_gate", "gate"),
        ("ffn_up", "up"),
        ("ffn_down", "down"),
    )
    for i in range(c.layers):
        for theirs, ours in parts:
            yield f"blk.{i}.{theirs}.weight", f"decoder.blocks.{i}.{ours}.weight"


def vision_names(c):
    """(name in the GGUF, name in the model)"""
    yield "v.patch_embd.weight", "vision.patch.weight"
    yield "v.position_embd.weight", "vision.position"
    pairs = [("v.pre_ln", "pre_ln"), ("v.post_ln", "post_ln")]
    pairs += [("mm.0", "project_in"), ("mm.2", "project_out")]
    parts = (
        ("ln1", "ln1"),
        ("ln2", "ln2"),
        ("attn_q", "q"),
        ("attn_k", "k"),
        ("attn_v", "v"),
        ("attn_out", "out"),
        ("ffn_up", "up"),
        ("ffn_down", "down"),
    )
    for i in range(c.vision_layers):
        pairs += [(f"v.blk.{i}.{theirs}", f"blocks.{i}.{ours}") for theirs, ours in parts]
    for theirs, ours in pairs:
        for kind in ("weight", "bias"):
            yield f"{theirs}.{kind}", f"vision.{ours}.{kind}"


def find_pair(folder_or_model):
    """Paths (model, mmproj) from a folder, or from the model's path."""
    if os.path.isdir(folder_or_model):
        return tuple(os.path.join(folder_or_model, f) for f in (MODEL_FILE, MMPROJ_FILE))
    return folder_or_model, folder_or_model.replace("-model-", "-mmproj-")


def load_pair(where):
    """-> (model in float32, Text); the training-only head `reading` is fresh"""
    from gguf import GGUFReader

    c = Shape()
    model = TinyLlava(c)
    state = model.state_dict()
    readers = [GGUFReader(path) for path in find_pair(where)]
    for reader, names in zip(readers, (decoder_names(c), vision_names(c))):
        tensors = {t.name: t for t in reader.tensors}
        for theirs, ours in names:
            data = np.array(tensors[theirs].data, dtype=np.float32)
            state[ours] = torch.from_numpy(data.reshape(state[ours].shape))
    model.load_state_dict(state)
    return model, tokenizer_module.Text(tokenizer_module.read(readers[0]))
