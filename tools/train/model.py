# SPDX-License-Identifier: MIT
"""The tiny LLaVA-type model: a ViT with a projector and a llama decoder.

Every function takes one image and its text: sequences need no padding, and the
work set of one sample stays in the cache of one core.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
NEVER = -30000.0
CHARACTER_SLOTS = 3
CLASSES = 80  # character classes of a patch slot, and colour classes
WORD_LAYER = 2  # its head 0 looks at the patch of the current token
NEXT_LAYERS = (4, 5)  # their head 0 looks at the patch of the next token


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 1280
    side: int = 336
    patch: int = 14
    vision_width: int = 256
    vision_layers: int = 6
    vision_heads: int = 4
    vision_ff: int = 1024
    width: int = 256
    layers: int = 8
    heads: int = 4
    head_size: int = 64
    ff: int = 704
    rms_eps: float = 1e-5
    layer_norm_eps: float = 1e-5
    rope_base: float = 10000.0
    context: int = 2048

    @property
    def columns(self):
        return self.side // self.patch

    @property
    def patches(self):
        return self.columns**2


class Linear(nn.Linear):
    """Weights stay f32; the product is taken in `products`, bf16 where the processor is faster with it."""

    products = torch.float32

    def forward(self, x):
        t = Linear.products
        bias = None if self.bias is None else self.bias.to(t)
        return F.linear(x.to(t), self.weight.to(t), bias)


class BlockAttention(torch.autograd.Function):
    """Exact attention by row blocks; q, k, v are [heads, tokens, size].

    plan is a list of (first_row, last_row, keys, bias): those rows see the
    first `keys` keys; bias [rows, m] is added to their last m scores.
    """

    @staticmethod
    def forward(ctx, q, k, v, plan):
        scale = q.shape[-1] ** -0.5
        q = q * scale
        out = torch.empty_like(v)
        shares = []
        for first, last, keys, bias in plan:
            scores = q[:, first:last] @ k[:, :keys].transpose(1, 2)
            if bias is not None:
                scores[:, :, keys - bias.shape[1] :] += bias
            share = torch.softmax(scores, -1)
            torch.matmul(share, v[:, :keys], out=out[:, first:last])
            shares.append(share)
        ctx.save_for_backward(q, k, v, *shares)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *shares = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (first, last, keys, _), share in zip(ctx.plan, shares):
            g = grad[:, first:last]
            dv[:, :keys].baddbmm_(share.transpose(1, 2), g)
            ds = g @ v[:, :keys].transpose(1, 2)
            ds = torch._softmax_backward_data(ds, share, -1, share.dtype)
            torch.matmul(ds, k[:, :keys], out=dq[:, first:last])
            dk[:, :keys].baddbmm_(ds.transpose(1, 2), q[:, first:last])
        return dq * ctx.scale, dk, dv, None


def full_plan(tokens):
    """Every row sees every key."""
    return [(0, tokens, tokens, None)]


def causal_plan(prefix, text_bias=None, blocks=4):
    """Causal rows of the prefix in blocks, then the text rows with their bias [T, T]."""
    plan, edges = [], [prefix * i // blocks for i in range(blocks + 1)]
    for first, last in zip(edges, edges[1:]):
        size = last - first
        plan.append((first, last, last, torch.full((size, size), NEVER).triu(1)))
    if text_bias is not None:
        end = prefix + len(text_bias)
        plan.append((prefix, end, end, text_bias))
    return plan


def quick_gelu(x):
    return F.silu(1.702 * x) / 1.702


class VisionBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c.vision_width
        self.heads = c.vision_heads
        self.ln1, self.ln2 = (nn.LayerNorm(d, eps=c.layer_norm_eps) for _ in range(2))
        self.q, self.k, self.v, self.out = (Linear(d, d) for _ in range(4))
        self.up, self.down = Linear(d, c.vision_ff), Linear(c.vision_ff, d)

    def forward(self, x, plan):
        """x [patches, width]"""
        n, d = x.shape
        y = self.ln1(x).to(Linear.products)
        q, k, v = (f(y).view(n, self.heads, -1).transpose(0, 1) for f in (self.q, self.k, self.v))
        x = x + self.out(BlockAttention.apply(q, k, v, plan).transpose(0, 1).reshape(n, d))
        return x + self.down(quick_gelu(self.up(self.ln2(x))))


class Vision(nn.Module):
    """Patches, transformer and projector; no class token."""

    def __init__(self, c):
        super().__init__()
        d = c.vision_width
        self.c = c
        self.patch = Linear(3 * c.patch**2, d, bias=False)
        self.position = nn.Parameter(torch.randn(c.patches, d) * 0.02)
        self.pre_ln, self.post_ln = (nn.LayerNorm(d, eps=c.layer_norm_eps) for _ in range(2))
        self.blocks = nn.ModuleList([VisionBlock(c) for _ in range(c.vision_layers)])
        self.project_in = Linear(d, 2 * c.width)
        self.project_out = Linear(2 * c.width, c.width)

    def trunk(self, pixels, first_row=0):
        """pixels [3, H, 336] normalised -> features [H/14 * 24, vision_width]"""
        c, rows = self.c, pixels.shape[1] // self.c.patch
        x = pixels.reshape(3, rows, c.patch, c.columns, c.patch)
        x = x.permute(1, 3, 0, 2, 4).reshape(rows * c.columns, -1)
        at = first_row * c.columns
        x = self.pre_ln(self.patch(x) + self.position[at : at + len(x)])
        plan = full_plan(len(x))
        for block in self.blocks:
            x = block(x, plan)
        return self.post_ln(x)

    def forward(self, pixels, first_row=0, frozen=False):
        """-> visual embeddings [H/14 * 24, width]; frozen: only the projector learns"""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            x = self.trunk(pixels, first_row)
        return self.project_out(F.gelu(self.project_in(x), approximate="tanh"))


class RmsNorm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_table(c, positions):
    """positions [n] -> unit complex numbers [n, 1, head_size/2]"""
    inverse = c.rope_base ** (-torch.arange(0, c.head_size, 2).float() / c.head_size)
    angle = positions.float()[:, None, None] * inverse
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x, table):
    """Interleaved RoPE; x [n, heads, head_size]"""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2)


class DecoderBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, d, h = c, c.width, c.heads * c.head_size
        self.norm1, self.norm2 = RmsNorm(d, c.rms_eps), RmsNorm(d, c.rms_eps)
        self.q, self.k, self.v = (Linear(d, h, bias=False) for _ in range(3))
        self.out = Linear(h, d, bias=False)
        self.gate, self.up = (Linear(d, c.ff, bias=False) for _ in range(2))
        self.down = Linear(c.ff, d, bias=False)

    def forward(self, x, table, plan, taps=None):
        """x [n, width]; taps, when a list, receives (q, k) of head 0, each [n, head_size]"""
        n, c = x.shape[0], self.c
        y = self.norm1(x).to(Linear.products)
        q, k, v = (f(y).view(n, c.heads, c.head_size) for f in (self.q, self.k, self.v))
        q, k = (rotate(t, table).transpose(0, 1).to(v.dtype) for t in (q, k))
        if taps is not None:
            taps.append((q[0], k[0]))
        a = BlockAttention.apply(q, k, v.transpose(0, 1), plan)
        x = x + self.out(a.transpose(0, 1).reshape(n, -1))
        y = self.norm2(x).to(Linear.products)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.blocks = nn.ModuleList([DecoderBlock(c) for _ in range(c.layers)])
        self.norm = RmsNorm(c.width, c.rms_eps)

    def forward(self, x, positions, plan, taps=None):
        """x [n, width] -> hidden states before the final norm; taps: {layer: list}"""
        table = rope_table(self.c, positions)
        for i, block in enumerate(self.blocks):
            x = block(x, table, plan, taps.get(i) if taps else None)
        return x


class TinyLlava(nn.Module):
    """vision + decoder; `reading` is the training-only head of the auxiliary loss."""

    def __init__(self, c=Shape()):
        super().__init__()
        self.c = c
        self.vision, self.decoder = Vision(c), Decoder(c)
        self.reading = Linear(c.width, (CHARACTER_SLOTS + 1) * CLASSES)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        for m in self.modules():
            if isinstance(m, nn.Linear):
                m.weight.normal_(std=0.02 * max(1.0, 768 / m.in_features) ** 0.5)
                if m.bias is not None:
                    m.bias.zero_()
        self.decoder.embedding.weight.normal_(std=0.05)
        for part in (self.vision, self.decoder):
            for b in part.blocks:
                b.out.weight /= (2 * len(part.blocks)) ** 0.5
                b.down.weight /= (2 * len(part.blocks)) ** 0.5

    def logits(self, hidden):
        hidden, table = self.decoder.norm(hidden), self.decoder.embedding.weight
        return F.linear(hidden.to(Linear.products), table.to(Linear.products)).float()


def normalise(image):
    """uint8 numpy [H, W, 3] -> float tensor [3, H, W]"""
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (IMAGE_MEAN, IMAGE_STD))
    return (x - mean) / std


def run_text(model, visual, opening, packed, taps=None):
    """Hidden states [T, width] of packed text behind the opening tokens and the image.

    visual [n, width]; opening: ids before the image; packed: see pack.py
    """
    ids = torch.cat([torch.tensor(opening), torch.from_numpy(packed["ids"])])
    text = model.decoder.embedding(ids)
    x = torch.cat([text[: len(opening)], visual, text[len(opening) :]])
    prefix = len(opening) + len(visual)
    order = torch.from_numpy(packed["order"])
    positions = torch.cat([torch.arange(prefix), prefix + order])
    bias = text_bias(torch.from_numpy(packed["group"]))
    return model.decoder(x, positions, causal_plan(prefix, bias), taps)[prefix:]


def text_bias(group):
    """group [T] -> additive bias [T, T]: causal, and only inside the own group"""
    n = len(group)
    seen = (group[:, None] == group[None]) & torch.ones(n, n, dtype=torch.bool).tril()
    return torch.zeros(n, n).masked_fill(~seen, NEVER)
