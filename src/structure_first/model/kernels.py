"""What the transformer asks of a device, one function for each operation: its meaning here, its speed behind it.

`transformer.py` says what is computed, these say how: which of torch's kernels is the quick one, and where torch has
none, one of our own. Each works for one replica as for hundreds.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

ELEMENTS = 1 << 17  # that a thread's GELU handles at once: what lies between input and output stays in its cache
SLOPE, CUBIC = (8 / torch.pi) ** 0.5, (8 / torch.pi) ** 0.5 * 0.044715
SCORES = 1 << 18  # that a thread's attention handles at once: a megabyte, in its core's own cache
TILE = 28  # queries handled at once: a tile skips the keys that lie in the future of all its queries
BITS = math.log2(math.e)  # scores are taken in bits: powers of 2 cost a quarter of what powers of e do
LEVELS = 1 << 16  # of a random number that decides what is dropped
SAFE = 86.0  # 2 ** 86 times any context fits a float32; scores that may exceed it are shifted by their row's maximum


def lookup(
    table: Float[Tensor, "replica vocab width"], tokens: Int[Tensor, "replica batch time"]
) -> Float[Tensor, "replica batch time width"]:
    """Each token's row of its replica's table."""
    replicas, vocab, _ = table.shape
    if replicas > 1:  # laid end to end, the tables are one
        offset = torch.arange(replicas, device=tokens.device) * vocab
        tokens = tokens + rearrange(offset, "replica -> replica 1 1")
    rows = rearrange(table, "replica vocab width -> (replica vocab) width")
    if eager_on_cpu(rows):  # a gradient in a fifth of the time, but on CUDA in no fixed order
        return rows.index_select(0, tokens.flatten()).view(*tokens.shape, -1)
    return F.embedding(tokens, rows)


def affine(
    x: Float[Tensor, "replica batch time i"], weight: Float[Tensor, "replica i o"], bias: Float[Tensor, "replica o"]
) -> Float[Tensor, "replica batch time o"]:
    """`x` times its replica's matrix, plus its bias."""
    # Not einops: what is called this often shows in the time of a small step.
    out = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), weight)
    return out.view(*x.shape[:-1], -1)


def norm(
    x: Float[Tensor, "replica batch time width"],
    scale: Float[Tensor, "replica width"],
    shift: Float[Tensor, "replica width"],
) -> Float[Tensor, "replica batch time width"]:
    """Layer normalisation of the last axis, with its replica's scale and shift."""
    if len(x) == 1:
        return F.layer_norm(x, x.shape[-1:], scale.view(-1), shift.view(-1), eps=1e-5)
    scale, shift = (rearrange(p, "replica width -> replica 1 1 width") for p in (scale, shift))
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), scale)


def attention(
    query: Float[Tensor, "sequence head n d"],
    key: Float[Tensor, "sequence head time d"],
    value: Float[Tensor, "sequence head time d"],
    at: Int[Tensor, "replica batch n"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "sequence head n d"]:
    """`softmax(d ** -0.5 query key^T) value`, no query seeing a later key; query n stands `at[n]`, None: at n.

    `dropout` is the share of the softmax's weights that is left out.
    """
    past = None
    if at is not None:
        places = torch.arange(key.shape[2], device=key.device)
        past = places <= rearrange(at, "replica batch n -> (replica batch) 1 n 1")
    if narrow(key.shape[-1], key.shape[2]) and eager_on_cpu(query):
        return NarrowAttention.apply(query.mT, key.mT, value.mT, past, dropout).mT
    return F.scaled_dot_product_attention(query, key, value, past, dropout, past is None)


def drop(x: Float[Tensor, "..."], share: float) -> Float[Tensor, "..."]:
    """`x` with that `share` of its numbers, drawn at random, at zero, and the others larger (Srivastava 2014)."""
    if not eager_on_cpu(x):
        return F.dropout(x, share)
    least, larger = dropping(share)
    return x * spared(noise(x.shape), least).mul_(larger)


def gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GPT-2's GELU (Hendrycks and Gimpel 2016), which a tanh approximates."""
    return Gelu.apply(x) if eager_on_cpu(x) else F.gelu(x, approximate="tanh")


def unembed(
    x: Float[Tensor, "replica batch time width"], table: Float[Tensor, "replica vocab width"]
) -> Float[Tensor, "replica batch time vocab"]:
    """The product of each vector with every row of its replica's table."""
    flat = rearrange(x, "replica batch time width -> replica (batch time) width")
    logits = torch.bmm(flat, rearrange(table, "replica vocab width -> replica width vocab"))
    return rearrange(logits, "replica (batch time) vocab -> replica batch time vocab", batch=x.shape[1])


def dropping(share: float) -> tuple[int, float]:
    """From which number of `noise` on something is spared, and how much larger that makes it."""
    dropped = min(round(share * LEVELS), LEVELS - 1)
    return dropped - LEVELS // 2, LEVELS / (LEVELS - dropped)


def noise(shape: torch.Size | tuple[int, ...]) -> Int[Tensor, "..."]:
    """Random numbers of 16 bits, four from each draw: for a CPU, which needs six times as long to toss coins."""
    count = math.prod(shape)
    drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return drawn.view(torch.int16)[:count].view(shape)


def spared(noise: Int[Tensor, "..."], least: int) -> Float[Tensor, "..."]:
    """1 for what is spared, 0 for what is dropped: as floats, with which a CPU multiplies three times as fast."""
    return torch.ge(noise, least, out=torch.empty(noise.shape))


def eager_on_cpu(x: Tensor) -> bool:
    """Whether kernels of our own serve: float32 on a CPU, and no compiler that would write better ones."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def narrow(head: int, context: int) -> bool:
    """Whether heads so wide, over so many tokens, are attended with faster on a CPU by a kernel of our own.

    The fused ones are made for wide heads; ours loses its lead as its products grow out of the cache.
    """
    return head <= 32 and head * context <= 1 << 13


class Gelu(torch.autograd.Function):
    """The GELU as `x sigmoid(x (SLOPE + CUBIC x^2))`, for a CPU, whom a sigmoid costs a tenth of a tanh.

    The derivative is taken while its parts are at hand.
    """

    @staticmethod
    def forward(ctx, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        flat, slope_at_0 = x.flatten(), x.new_tensor(SLOPE)
        y, slope = torch.empty_like(flat), torch.empty_like(flat)
        pieces = (each.split(ELEMENTS * torch.get_num_threads()) for each in (flat, y, slope))
        for x_, y_, slope_ in zip(*pieces, strict=True):
            gate = torch.addcmul(slope_at_0, x_, x_, value=CUBIC).mul_(x_).sigmoid_()
            torch.mul(x_, gate, out=y_)
            inner = torch.addcmul(slope_at_0, x_, x_, value=3 * CUBIC)  # what the sigmoid is of, differentiated
            torch.addcmul(gate, torch.addcmul(y_, y_, gate, value=-1), inner, out=slope_)
        ctx.save_for_backward(slope.view(x.shape))
        return y.view(x.shape)

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return grad * ctx.saved_tensors[0]


class NarrowAttention(torch.autograd.Function):
    """`softmax(d ** -0.5 query^T key) value`: causal, or where `past` says, one row of it for each query.

    A head of width 4 spends its time not in arithmetic but in short rows: a product that writes rows of four, a softmax
    over rows of 25. So everything here is feature-major, `[head d time]`, and every product writes rows as long as the
    sequence; the scores are handled a cache-sized share at a time and exponentiated in place, and a row of ones under
    the values makes the product that mixes them return the softmax's sums as well. What is dropped out of the weights
    counts in these sums; of that the random numbers are kept, for a comparison is cheap.
    """

    @staticmethod
    def forward(
        ctx,
        query: Float[Tensor, "batch head d query"],
        key: Float[Tensor, "batch head d key"],
        value: Float[Tensor, "batch head d key"],
        past: Bool[Tensor, "batch 1 query key"] | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "batch head d query"]:
        batch, heads, d, times = key.shape
        over_ones = value.new_ones(batch, heads, d + 1, times)
        over_ones[:, :, :d] = value
        # A single sequence flattens without a copy, into strides at which `bmm` takes four times as long.
        query, key, value = (x.flatten(0, 1).contiguous() for x in (query, key, over_ones))
        ctx.scale = d**-0.5
        safe = bool(ctx.scale * BITS * d * query.abs().amax() * key.abs().amax() <= SAFE)
        ctx.tiles = [(slice(None), times)] if past is not None else list(tiles(times))
        sums, weights, drawn = query.new_empty(len(query), d + 1, query.shape[-1]), [], []
        ctx.least, ctx.larger = dropping(dropout) if dropout else (None, 1.0)
        for rows, seen in ctx.tiles:
            tile = query[..., rows]
            if past is None:
                future = tile.new_full((tile.shape[-1], seen), -torch.inf).triu(1 + seen - tile.shape[-1])
            else:
                future = torch.where(past, 0.0, -torch.inf).expand(-1, heads, -1, -1).flatten(0, 1)
            weights.append(tile.new_empty(len(tile), *future.shape[-2:]))
            if dropout:
                drawn.append(noise(weights[-1].shape))
            for part in shares(weights[-1]):
                scores, bias = weights[-1][part], future if past is None else future[part]
                torch.baddbmm(bias, tile[part].mT, key[part, :, :seen], alpha=ctx.scale * BITS, out=scores)
                if not safe:
                    scores.sub_(scores.amax(-1, keepdim=True))
                scores.exp2_()
                spared_scores = scores * spared(drawn[-1][part], ctx.least) if dropout else scores
                sums[part, :, rows] = torch.bmm(value[part, :, :seen], spared_scores.mT)
                if dropout:
                    sums[part, d, rows] = scores.sum(-1)
        mixed, total = sums[:, :d] / sums[:, d:], sums[:, d:]
        if dropout:
            mixed.mul_(ctx.larger)
        ctx.save_for_backward(query, key, value, mixed, total, *weights, *drawn)
        return mixed.unflatten(0, (batch, heads))

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "batch head d query"]):
        query, key, value, mixed, total, *tiled = ctx.saved_tensors
        weights, drawn = tiled[: len(ctx.tiles)], tiled[len(ctx.tiles) :] or [None] * len(ctx.tiles)
        split, d = grad.shape[:2], grad.shape[2]
        # The weights are not normalised: divide the narrow side, not the wide one.
        inner = grad.new_empty(len(query), d + 1, grad.shape[-1])
        torch.div(grad.reshape(mixed.shape), total, out=inner[:, :d])
        torch.sum(inner[:, :d] * mixed, 1, keepdim=True, out=inner[:, d:]).neg_()
        for_query, for_key, for_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(key)
        if ctx.least is not None:
            inner[:, :d].mul_(ctx.larger)
        every = list(zip(ctx.tiles, weights, drawn, strict=True))
        for (rows, seen), tile, random in reversed(every):  # the last sees every key
            for part in shares(tile):
                weight, inner_part = tile[part], inner[part, :, rows]
                if random is None:
                    back = torch.bmm(inner_part.mT, value[part, :, :seen]).mul_(weight)
                else:
                    mask = spared(random[part], ctx.least)
                    back = torch.bmm(inner_part[:, :d].mT, value[part, :d, :seen]).mul_(mask)
                    back.add_(inner_part[:, d:].mT).mul_(weight)
                    weight = mask.mul_(weight)
                for_query[part, :, rows] = torch.bmm(key[part, :, :seen], back.mT)
                for whole, a, b in ((for_value, inner_part[:, :d], weight), (for_key, query[part, :, rows], back)):
                    if seen == whole.shape[-1]:
                        product(a, b, out=whole[part])
                    else:
                        whole[part, :, :seen].add_(product(a, b))
        grads = (for_query.mul_(ctx.scale), for_key.mul_(ctx.scale), for_value)
        return *(x.unflatten(0, split) for x in grads), None, None


def product(
    a: Float[Tensor, "head d q"], b: Float[Tensor, "head q k"], out: Tensor | None = None
) -> Float[Tensor, "head d k"]:
    """Their matrix product; over a single query that is a multiplication, at which `bmm` is slow."""
    return torch.mul(a, b, out=out) if a.shape[-1] == 1 else torch.bmm(a, b, out=out)


def tiles(queries: int) -> Iterator[tuple[slice, int]]:
    """Slices of the queries, each with the number of keys its last query sees."""
    count = -(-queries // TILE)
    return ((slice(a, b), b) for a, b in pairwise(queries * i // count for i in range(count + 1)))


def shares(scores: Float[Tensor, "head q k"]) -> Iterator[slice]:
    step = max(1, SCORES * torch.get_num_threads() // scores[0].numel())
    return (slice(i, i + step) for i in range(0, len(scores), step))
