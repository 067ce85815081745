#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Perplexities of kvsieve and of KVPress behind the same compressed prompts, as a table.

    pip install kvpress gguf
    tools/compare_kvpress.py MODEL.gguf build/release/bin/kvsieve_text_perplexity [--text TEXT] [--prompt N] [--rest N]

MODEL is a GGUF of architecture llama of any weight type. Its weights are written once more in half precision beside
--work, and both programs compute with those: kvsieve from that file, KVPress in float32 on the CPU. The prompt is
compressed after the prefill, nothing is evicted while decoding, new tokens have their true positions.
"""
import argparse
import json
import math
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from kvpress import (AdaKVPress, ExpectedAttentionPress, KeyDiffPress, KnormPress, ObservedAttentionPress,
                     PyramidKVPress, SnapKVPress, StreamingLLMPress, TOVAPress)
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

# What both have, with equal windows, kernels and sinks.
PRESSES = {
    "streaming_llm": lambda r: StreamingLLMPress(r, n_sink=4),
    "h2o": lambda r: ObservedAttentionPress(r),
    "snapkv": lambda r: SnapKVPress(r, window_size=64, kernel_size=5),
    "pyramidkv": lambda r: PyramidKVPress(r, window_size=64, kernel_size=5, beta=20),
    "adakv": lambda r: AdaKVPress(SnapKVPress(r, window_size=64, kernel_size=5), alpha_safeguard=0.2),
    "tova": lambda r: TOVAPress(r),
    "knorm": lambda r: KnormPress(r),
    "keydiff": lambda r: KeyDiffPress(r),
    "expected_attention": lambda r: ExpectedAttentionPress(r, n_future_positions=512, n_sink=4, epsilon=0.0),
}


def half_precision(reader, path):
    """Writes the model with matrices in f16 and returns them as arrays [out, in], norms in f32."""
    writer = GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind,
                             field.types[-1] if kind == GGUFValueType.ARRAY else None)
    arrays = {}
    for tensor in reader.tensors:
        data = dequantize(tensor.data, tensor.tensor_type)
        data = data.astype(np.float32 if data.ndim == 1 else np.float16)
        arrays[tensor.name] = data
        writer.add_tensor(tensor.name, data, raw_dtype=GGMLQuantizationType.F32 if data.ndim == 1
                          else GGMLQuantizationType.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return arrays


def transformers_model(reader, arrays):
    """The same weights as a model of transformers, in float32."""
    def value(name, default=None):
        field = reader.get_field("llama." + name)
        return default if field is None else field.contents()

    n_head, n_head_kv = value("attention.head_count"), value("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=arrays["token_embd.weight"].shape[0], hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"), num_hidden_layers=value("block_count"),
        num_attention_heads=n_head, num_key_value_heads=n_head_kv, max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"), rope_theta=value("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in arrays, attn_implementation="sdpa")

    def halves(weight, heads):
        # GGUF has the pairs that are rotated together side by side, transformers in two halves.
        return weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)

    state = {"model.embed_tokens.weight": arrays["token_embd.weight"], "model.norm.weight": arrays["output_norm.weight"],
             "lm_head.weight": arrays.get("output.weight", arrays["token_embd.weight"])}
    for i in range(config.num_hidden_layers):
        layer, block = f"model.layers.{i}.", f"blk.{i}."
        state[layer + "self_attn.q_proj.weight"] = halves(arrays[block + "attn_q.weight"], n_head)
        state[layer + "self_attn.k_proj.weight"] = halves(arrays[block + "attn_k.weight"], n_head_kv)
        for ours, theirs in (("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
                             ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
                             ("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            state[layer + theirs + ".weight"] = arrays[block + ours + ".weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)) for k, v in state.items()})
    return model.eval()


@torch.no_grad()
def perplexity(model, press, tokens, n_prompt):
    # Clears what a press for single heads has left behind.
    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None
    ids, cache = torch.tensor([tokens]), DynamicCache()
    if press is None:
        logits = model(ids[:, :n_prompt], past_key_values=cache).logits[0, -1]
    else:
        if isinstance(press, ObservedAttentionPress):
            model.set_attn_implementation("eager")  # it needs the attention that is computed
        with press(model):
            logits = model(ids[:, :n_prompt], past_key_values=cache).logits[0, -1]
        model.set_attn_implementation("sdpa")
    # Layers may hold different numbers of rows: a single query sees them all, without a mask.
    total = 0.0
    for i in range(n_prompt, len(tokens)):
        total -= torch.log_softmax(logits.double(), -1)[tokens[i]].item()
        if i + 1 < len(tokens):
            at = torch.tensor([i])
            logits = model(ids[:, i:i + 1], past_key_values=cache, position_ids=at[None],
                           cache_position=at).logits[0, -1]
    return math.exp(total / (len(tokens) - n_prompt))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("program", help="kvsieve_text_perplexity")
    parser.add_argument("--text", default=pathlib.Path(__file__).parent.parent / "tests/data/passages.txt")
    parser.add_argument("--prompt", type=int, default=768, help="tokens of the prompt")
    parser.add_argument("--rest", type=int, default=256, help="tokens behind it")
    parser.add_argument("--keep", default="0.5,0.2")
    parser.add_argument("--methods", default=",".join(PRESSES))
    parser.add_argument("--work", help="folder of the model in half precision; default: a temporary one")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(args.work or temporary) / "half.gguf"
        reader = GGUFReader(args.model)
        arrays = half_precision(reader, path)
        model = transformers_model(reader, arrays)
        del arrays
        methods = "full," + args.methods
        out = subprocess.run([args.program, path, args.text, str(args.prompt), str(args.rest), methods, args.keep],
                             check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    tokens = json.loads(out[0])["tokens"]
    print("| method | keep | kvsieve | KVPress | difference |\n|---|---|---|---|---|")
    worst = 0.0
    for line in map(json.loads, out[1:]):
        name, keep = line["method"], line["keep"]
        press = None if name == "full" else PRESSES[name](round(1 - keep, 12))
        theirs = perplexity(model, press, tokens, args.prompt)
        difference = line["perplexity"] / theirs - 1
        worst = max(worst, abs(difference))
        print(f"| {name} | {keep:g} | {line['perplexity']:.3f} | {theirs:.3f} | {100 * difference:+.2f} % |", flush=True)
    print(f"\nlargest difference {100 * worst:.2f} %")
    raise SystemExit(0 if worst <= 0.01 else 1)


if __name__ == "__main__":
    main()
