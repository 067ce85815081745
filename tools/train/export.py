# SPDX-License-Identifier: MIT
"""Writes the GGUF pair from a checkpoint: `python export.py CHECKPOINT OUT_FOLDER --tokens PAIR`.

Traps of llama.cpp's clip loader that this file avoids: without `feature_layer`
the last vision layer is not run; a class embedding would cost the first patch;
`use_gelu` false means quick-gelu; the token tensor doubles as the output.
"""
import argparse
import json
import os

import gguf
import numpy as np

import pair
import store
from model import IMAGE_MEAN, IMAGE_STD, Shape, TinyLlava
from tokenizer import SPECIAL

CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)
NORMAL, CONTROL = 1, 3


def common(writer, name, described):
    writer.add_name(name)
    writer.add_description(described)
    writer.add_license("MIT")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tensors(writer, names, state):
    """Matrices as F16; norms, biases and the position table as F32."""
    for theirs, ours in names:
        data = state[ours].float().numpy()
        if theirs == "v.patch_embd.weight":
            c = Shape()
            data = data.reshape(c.vision_width, 3, c.patch, c.patch)
        half = data.ndim > 1 and "position" not in theirs
        writer.add_tensor(theirs, np.ascontiguousarray(data, np.float16 if half else np.float32))


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer):
    data = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if t in SPECIAL else NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<pad>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_model(path, state, text):
    c = Shape()
    writer = gguf.GGUFWriter(path, "llama")
    common(writer, "kvsieve-tiny", "Tiny LLaVA-type model that reads generated documents")
    writer.add_vocab_size(c.vocabulary)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.ff)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.heads)
    writer.add_key_length(c.head_size)
    writer.add_value_length(c.head_size)
    writer.add_rope_dimension_count(c.head_size)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.rms_eps)
    add_tokenizer(writer, text.tokenizer)
    add_tensors(writer, pair.decoder_names(c), state)
    write(writer)


def write_mmproj(path, state):
    c = Shape()
    writer = gguf.GGUFWriter(path, "clip")
    common(writer, "kvsieve-tiny-mmproj", "Vision part of kvsieve-tiny")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    for key, value in (
        ("image_size", c.side),
        ("patch_size", c.patch),
        ("embedding_length", c.vision_width),
        ("feed_forward_length", c.vision_ff),
        ("projection_dim", c.width),
        ("block_count", c.vision_layers),
        ("attention.head_count", c.vision_heads),
    ):
        writer.add_uint32("clip.vision." + key, value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", c.layer_norm_eps)
    writer.add_array("clip.vision.feature_layer", [c.vision_layers])
    writer.add_array("clip.vision.image_mean", list(IMAGE_MEAN))
    writer.add_array("clip.vision.image_std", list(IMAGE_STD))
    add_tensors(writer, pair.vision_names(c), state)
    write(writer)


def export(model, text, folder):
    """Both files appear complete or not at all."""
    os.makedirs(folder, exist_ok=True)
    state = model.state_dict()
    paths = pair.find_pair(folder)
    write_model(paths[0] + ".new", state, text)
    write_mmproj(paths[1] + ".new", state)
    for path in paths:
        os.replace(path + ".new", path)


def mix(model, other):
    """The model becomes the mean of both."""
    theirs = other.state_dict()
    model.load_state_dict({k: (v + theirs[k]) / 2 for k, v in model.state_dict().items()})


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("checkpoint")
    p.add_argument("folder")
    p.add_argument("--tokens", required=True, help="GGUF pair or tokenizer JSON")
    p.add_argument("--raw", action="store_true", help="the last weights, not their average")
    p.add_argument("--mean-with", metavar="PAIR", help="export the mean with this pair's weights")
    o = p.parse_args()
    if o.tokens.endswith(".json"):
        from tokenizers import Tokenizer

        from tokenizer import Text

        model, text = TinyLlava(), Text(Tokenizer.from_file(o.tokens))
    else:
        model, text = pair.load_pair(o.tokens)
    store.load_into(model, o.checkpoint, averaged=not o.raw)
    if o.mean_with:
        mix(model, pair.load_pair(o.mean_with)[0])
    export(model, text, o.folder)


if __name__ == "__main__":
    main()
