"""Attention for heads too narrow to fill a vector register, on a CPU.

A head of width 4 spends its time not in arithmetic but in short rows: a product that writes rows of four, a softmax
over rows of 25. So everything here is feature-major, `[head d time]`, and every product writes rows as long as the
sequence; the scores are handled a cache-sized share at a time and exponentiated in place, and a row of ones under the
values makes the product that mixes them return the softmax's sums as well.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from einops import pack, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

SHARE = 1 << 18  # scores handled at once: a megabyte, so that they stay in a core's own cache
TILE = 16  # queries handled at once: a tile skips the keys that lie in the future of all its queries
SAFE = 60.0  # exp(60) times any context fits a float32; scores that may exceed it are shifted by their row's maximum


class NarrowAttention(torch.autograd.Function):
    """`softmax(query^T key) value` with scaled queries: causal, or where `past` says, one row of it for each query."""

    @staticmethod
    def forward(
        ctx,
        query: Float[Tensor, "batch head d query"],
        key: Float[Tensor, "batch head d key"],
        value: Float[Tensor, "batch head d key"],
        past: Bool[Tensor, "batch 1 query key"] | None = None,
    ) -> Float[Tensor, "batch head d query"]:
        ctx.heads = query.shape[1]
        query, key, value = (rearrange(x, "batch head d time -> (batch head) d time") for x in (query, key, value))
        value, _ = pack([value, torch.ones_like(value[:, :1])], "head * key")
        safe = bool(_norm(query) * _norm(key) <= SAFE)
        ctx.tiles = [(slice(None), key.shape[-1])] if past is not None else list(_tiles(query.shape[-1]))
        sums, weights = [], []
        for rows, seen in ctx.tiles:
            tile = query[..., rows]
            if past is None:
                future = tile.new_full((tile.shape[-1], seen), -torch.inf).triu(1 + seen - tile.shape[-1])
            else:
                future = torch.where(past, 0.0, -torch.inf).expand(-1, ctx.heads, -1, -1).flatten(0, 1)
            weights.append(tile.new_empty(len(tile), *future.shape[-2:]))
            sums.append(tile.new_empty(len(tile), value.shape[1], tile.shape[-1]))
            for part in _shares(weights[-1]):
                scores, bias = weights[-1][part], future if past is None else future[part]
                torch.baddbmm(bias, tile[part].mT, key[part, :, :seen], out=scores)
                if not safe:
                    scores.sub_(scores.amax(-1, keepdim=True))
                torch.bmm(value[part, :, :seen], scores.exp_().mT, out=sums[-1][part])
        sums = torch.cat(sums, dim=-1)
        mixed, total = sums[:, :-1] / sums[:, -1:], sums[:, -1:]
        ctx.save_for_backward(query, key, value, mixed, total, *weights)
        return rearrange(mixed, "(batch head) d query -> batch head d query", head=ctx.heads)

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "batch head d query"]):
        query, key, value, mixed, total, *weights = ctx.saved_tensors
        # The weights are not normalised: divide the narrow side, not the wide one.
        grad = rearrange(grad, "batch head d query -> (batch head) d query") / total
        inner, _ = pack([grad, -(grad * mixed).sum(1, keepdim=True)], "head * query")
        for_query, for_key, for_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(key)
        for (rows, seen), tile in zip(ctx.tiles, weights, strict=True):
            for part in _shares(tile):
                seen_key, weight = key[part, :, :seen], tile[part]
                for_value[part, :, :seen] += _product(grad[part, :, rows], weight)
                back = torch.bmm(inner[part, :, rows].mT, value[part, :, :seen])
                back.mul_(weight)
                for_query[part, :, rows] = torch.bmm(seen_key, back.mT)
                for_key[part, :, :seen] += _product(query[part, :, rows], back)
        split = "(batch head) d time -> batch head d time"
        return *(rearrange(x, split, head=ctx.heads) for x in (for_query, for_key, for_value)), None


def _product(a: Float[Tensor, "head d q"], b: Float[Tensor, "head q k"]) -> Float[Tensor, "head d k"]:
    """Their matrix product; over a single query that is a multiplication, at which `bmm` is slow."""
    return a * b if a.shape[-1] == 1 else torch.bmm(a, b)


def _tiles(queries: int) -> Iterator[tuple[slice, int]]:
    """Slices of the queries, each with the number of keys its last query sees."""
    count = -(-queries // TILE)
    return ((slice(a, b), b) for a, b in pairwise(queries * i // count for i in range(count + 1)))


def _shares(scores: Float[Tensor, "head q k"]) -> Iterator[slice]:
    step = max(1, SHARE // scores[0].numel())
    return (slice(i, i + step) for i in range(0, len(scores), step))


def _norm(x: Float[Tensor, "head d time"]) -> Tensor:
    return x.square().sum(1).amax().sqrt()
