"""Attention for heads too narrow to fill a vector register, on a CPU.

A head of width 4 spends its time not in arithmetic but in short rows: a product that writes rows of four, a softmax
over rows of 25. So everything here is feature-major, `[head d time]`, and every product writes rows as long as the
sequence; the scores are handled a cache-sized share at a time and exponentiated in place, and a row of ones under the
values makes the product that mixes them return the softmax's sums as well.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import e, log2

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHARE = 1 << 18  # scores a thread handles at once: a megabyte, so that they stay in its core's own cache
TILE = 28  # queries handled at once: a tile skips the keys that lie in the future of all its queries
BITS = log2(e)  # scores are taken in bits: powers of 2 cost a quarter of what powers of e do
SAFE = 86.0  # 2 ** 86 times any context fits a float32; scores that may exceed it are shifted by their row's maximum


class NarrowAttention(torch.autograd.Function):
    """`softmax(d ** -0.5 query^T key) value`: causal, or where `past` says, one row of it for each query."""

    @staticmethod
    def forward(
        ctx,
        query: Float[Tensor, "batch head d query"],
        key: Float[Tensor, "batch head d key"],
        value: Float[Tensor, "batch head d key"],
        past: Bool[Tensor, "batch 1 query key"] | None = None,
    ) -> Float[Tensor, "batch head d query"]:
        batch, heads, d, times = key.shape
        over_ones = value.new_ones(batch, heads, d + 1, times)
        over_ones[:, :, :d] = value
        query, key, value = (x.flatten(0, 1) for x in (query, key, over_ones))
        ctx.scale = d**-0.5
        safe = bool(ctx.scale * BITS * d * _largest(query) * _largest(key) <= SAFE)
        ctx.tiles = [(slice(None), times)] if past is not None else list(_tiles(times))
        sums, weights = query.new_empty(len(query), d + 1, query.shape[-1]), []
        for rows, seen in ctx.tiles:
            tile = query[..., rows]
            if past is None:
                future = tile.new_full((tile.shape[-1], seen), -torch.inf).triu(1 + seen - tile.shape[-1])
            else:
                future = torch.where(past, 0.0, -torch.inf).expand(-1, heads, -1, -1).flatten(0, 1)
            weights.append(tile.new_empty(len(tile), *future.shape[-2:]))
            for part in _shares(weights[-1]):
                scores, bias = weights[-1][part], future if past is None else future[part]
                torch.baddbmm(bias, tile[part].mT, key[part, :, :seen], alpha=ctx.scale * BITS, out=scores)
                if not safe:
                    scores.sub_(scores.amax(-1, keepdim=True))
                sums[part, :, rows] = torch.bmm(value[part, :, :seen], scores.exp2_().mT)
        mixed, total = sums[:, :d] / sums[:, d:], sums[:, d:]
        ctx.save_for_backward(query, key, value, mixed, total, *weights)
        return mixed.unflatten(0, (batch, heads))

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "batch head d query"]):
        query, key, value, mixed, total, *weights = ctx.saved_tensors
        split, d = grad.shape[:2], grad.shape[2]
        # The weights are not normalised: divide the narrow side, not the wide one.
        inner = grad.new_empty(len(query), d + 1, grad.shape[-1])
        torch.div(grad.reshape(mixed.shape), total, out=inner[:, :d])
        torch.sum(inner[:, :d] * mixed, 1, keepdim=True, out=inner[:, d:]).neg_()
        for_query, for_key, for_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(key)
        for (rows, seen), tile in reversed(list(zip(ctx.tiles, weights, strict=True))):  # the last sees every key
            for part in _shares(tile):
                weight, there = tile[part], inner[part, :, rows]
                back = torch.bmm(there.mT, value[part, :, :seen]).mul_(weight)
                for_query[part, :, rows] = torch.bmm(key[part, :, :seen], back.mT)
                for whole, a, b in ((for_value, there[:, :d], weight), (for_key, query[part, :, rows], back)):
                    if seen == whole.shape[-1]:
                        _product(a, b, out=whole[part])
                    else:
                        whole[part, :, :seen].add_(_product(a, b))
        grads = (for_query.mul_(ctx.scale), for_key.mul_(ctx.scale), for_value)
        return *(x.unflatten(0, split) for x in grads), None


def _product(
    a: Float[Tensor, "head d q"], b: Float[Tensor, "head q k"], out: Tensor | None = None
) -> Float[Tensor, "head d k"]:
    """Their matrix product; over a single query that is a multiplication, at which `bmm` is slow."""
    return torch.mul(a, b, out=out) if a.shape[-1] == 1 else torch.bmm(a, b, out=out)


def _tiles(queries: int) -> Iterator[tuple[slice, int]]:
    """Slices of the queries, each with the number of keys its last query sees."""
    count = -(-queries // TILE)
    return ((slice(a, b), b) for a, b in pairwise(queries * i // count for i in range(count + 1)))


def _shares(scores: Float[Tensor, "head q k"]) -> Iterator[slice]:
    step = max(1, SHARE * torch.get_num_threads() // scores[0].numel())
    return (slice(i, i + step) for i in range(0, len(scores), step))


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax()
