# SPDX-License-Identifier: MIT
"""Byte-level BPE of 1280 entries with single digits; the prompt's fixed tokens.

`python tokenizer.py OUT.json` trains one on generated questions and answers.
"""
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # llama.cpp's pre-tokenizer "qwen2"
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>")
SIZE = 1280


class Text:
    """A tokenizer and the fixed parts of the prompt.

    opening [image] question middle answer END, and again reopening question ...
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        ids = {t: tokenizer.token_to_id(t) for t in SPECIAL + ("user", "assistant")}
        newline = self.encode("\n")
        assert len(newline) == 1 and None not in ids.values()
        self.end = ids["<|im_end|>"]
        start = ids["<|im_start|>"]
        self.opening = [ids["<s>"], start, ids["user"]] + newline
        self.middle = [self.end] + newline + [start, ids["assistant"]] + newline
        self.reopening = newline + [start, ids["user"]] + newline

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def build(vocabulary, merges):
    """Tokenizer from {token: id} and a list of pairs."""
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.add_special_tokens(list(SPECIAL))
    return set_rules(made)


def read(reader):
    """The tokenizer of a GGUF file that a gguf.GGUFReader has open."""

    def strings(key):
        f = reader.fields[key]
        return [bytes(f.parts[i]).decode() for i in f.data]

    tokens = strings("tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in strings("tokenizer.ggml.merges")]
    return build({t: i for i, t in enumerate(tokens)}, merges)


def set_rules(tokenizer):
    pieces = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def training_text(images):
    import generate
    import vocab

    for index in range(images):
        sample = generate.draw_sample(generate.sample_seed("train", index))
        for turn in sample.questions + sample.longs:
            yield turn.prompt
            yield turn.answer
    lists = (vocab.FIRST_NAMES, vocab.LAST_NAMES, vocab.CITIES, vocab.ITEMS, vocab.COLOUR_NAMES)
    for word in sum(lists, []) + list(vocab.SHAPE_NAMES) + vocab.FIELD_NAMES:
        for _ in range(40):
            yield word
            yield " " + word
    for _ in range(5000):
        yield "user"
        yield "assistant"


def train(images=6000):
    made = set_rules(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=20,
        show_progress=False,
    )
    made.train_from_iterator(training_text(images), trainer)
    assert made.get_vocab_size() == SIZE
    return made


if __name__ == "__main__":
    train().save(sys.argv[1])
