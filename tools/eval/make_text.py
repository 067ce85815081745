# SPDX-License-Identifier: MIT
"""Writes data/text/text.jsonl: samples of 1,024 + 128 tokens for SmolLM2 and models with its tokenizer.

    apt-get download jargon-text && dpkg-deb -x jargon-text_*.deb jargon
    make_text.py jargon/usr/share/doc/jargon-text/jargon.txt.gz SmolLM2-135M-Instruct.Q4_1.gguf

The text is prose of the Jargon File 4.4.7, which is in the public domain. Needs the PyPI packages gguf and
tokenizers (tools/train/requirements.txt).
"""
import argparse
import gzip
import json
import os
import re

N_PROMPT, N_ANSWER = 1024, 128
# Prose: (title that begins the part, title that ends it). The revision history and the lexicon are left out.
PARTS = (
    ("Chapter 1. Hacker Slang and Hacker Culture", "Chapter 3. Revision History"),
    ("Chapter 4. Jargon Construction", "Chapter 12. Format for New Entries"),
    ("Appendix A. Hacker Folklore", "Politics"),
    ("Personality Characteristics", "Weaknesses of the Hacker Personality"),
    ("Appendix C. Helping Hacker Culture Grow", "Bibliography"),
)
DEFAULT_OUT = os.path.join(os.path.dirname(__file__), "..", "..", "data", "text", "text.jsonl")


def paragraphs(text):
    """The parts' paragraphs, each on one line; without tables, rules and lists of sections."""
    titles = {line.strip() for line in text[: text.index("\n" + PARTS[0][0] + "\n")].splitlines()}
    for first, behind in PARTS:
        start = text.index("\n" + first + "\n")
        part = text[start : text.index("\n" + behind + "\n", start)]
        for paragraph in re.split(r"\n\s*\n", part):
            line = " ".join(paragraph.split())
            listed = line in titles and paragraph[0].isspace()
            if line and not listed and not re.search("[\u2500-\u257f]", line) and line != "Table of Contents":
                yield line


def read_tokenizer(path):
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(path).fields

    def strings(key):
        return [bytes(fields[key].parts[i]).decode() for i in fields[key].data]

    pre = strings("tokenizer.ggml.pre")
    if pre != ["smollm"]:
        raise SystemExit(f"{path} has the pre-tokenizer {pre[0]}; expected smollm")
    tokens = {token: i for i, token in enumerate(strings("tokenizer.ggml.tokens"))}
    made = Tokenizer(models.BPE(tokens, [tuple(m.split(" ")) for m in strings("tokenizer.ggml.merges")]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    return made


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("text", help="jargon.txt.gz")
    p.add_argument("gguf", help="a model with SmolLM2's tokenizer")
    p.add_argument("-o", "--out", default=DEFAULT_OUT)
    o = p.parse_args()
    text = gzip.open(o.text, "rt", encoding="utf-8").read().replace("\u00a0", " ")
    ids = read_tokenizer(o.gguf).encode("\n".join(paragraphs(text))).ids
    size = N_PROMPT + N_ANSWER
    os.makedirs(os.path.dirname(o.out), exist_ok=True)
    with open(o.out, "w", encoding="utf-8") as out:
        for i in range(len(ids) // size):
            piece = ids[i * size : (i + 1) * size]
            line = {"id": f"jargon-{i:02d}", "prompt_tokens": piece[:N_PROMPT], "answer_tokens": piece[N_PROMPT:]}
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
    print(f"{len(ids)} tokens, {len(ids) // size} samples of {N_PROMPT} + {N_ANSWER}")


if __name__ == "__main__":
    main()
