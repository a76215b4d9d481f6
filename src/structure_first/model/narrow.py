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
from jaxtyping import Float
from torch import Tensor

SHARE = 1 << 17  # scores handled at once: half a megabyte, so that they stay in a core's own cache
TILE = 16  # queries handled at once: a tile skips the keys that lie in the future of all its queries
SAFE = 60.0  # exp(60) times any context fits a float32; scores that may exceed it are shifted by their row's maximum


class NarrowAttention(torch.autograd.Function):
    """`softmax(query^T key) value`, causal; the queries are the last of the keys' positions, and scaled already."""

    @staticmethod
    def forward(
        ctx, query: Float[Tensor, "head d query"], key: Float[Tensor, "head d key"], value: Float[Tensor, "head d key"]
    ) -> Float[Tensor, "head d query"]:
        value, _ = pack([value, torch.ones_like(value[:, :1])], "head * key")
        safe = bool(_norm(query) * _norm(key) <= SAFE)
        sums, weights = [], []
        for rows, seen in _tiles(query.shape[-1], key.shape[-1]):
            tile = query[..., rows]
            future = tile.new_full((tile.shape[-1], seen), -torch.inf).triu(1 + seen - tile.shape[-1])
            weights.append(tile.new_empty(len(tile), *future.shape))
            sums.append(tile.new_empty(len(tile), value.shape[1], tile.shape[-1]))
            for part in _shares(weights[-1]):
                scores = weights[-1][part]
                torch.baddbmm(future, rearrange(tile[part], "head d q -> head q d"), key[part, :, :seen], out=scores)
                if not safe:
                    scores.sub_(scores.amax(-1, keepdim=True))
                back = rearrange(scores.exp_(), "head q k -> head k q")
                torch.bmm(value[part, :, :seen], back, out=sums[-1][part])
        sums = torch.cat(sums, dim=-1)
        mixed, total = sums[:, :-1] / sums[:, -1:], sums[:, -1:]
        ctx.save_for_backward(query, key, value, mixed, total, *weights)
        return mixed

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "head d query"]):
        query, key, value, mixed, total, *weights = ctx.saved_tensors
        grad = grad / total  # the weights are not normalised: divide the narrow side, not the wide one
        inner, _ = pack([grad, -(grad * mixed).sum(1, keepdim=True)], "head * query")
        for_query, for_key, for_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(key)
        for (rows, seen), tile in zip(_tiles(query.shape[-1], key.shape[-1]), weights, strict=True):
            for part in _shares(tile):
                seen_key, weight = key[part, :, :seen], tile[part]
                for_value[part, :, :seen] += torch.bmm(grad[part, :, rows], weight)
                back = torch.bmm(rearrange(inner[part, :, rows], "head d q -> head q d"), value[part, :, :seen])
                back.mul_(weight)
                for_query[part, :, rows] = torch.bmm(seen_key, rearrange(back, "head q k -> head k q"))
                for_key[part, :, :seen] += torch.bmm(query[part, :, rows], back)
        return for_query, for_key, for_value


def _tiles(queries: int, keys: int) -> Iterator[tuple[slice, int]]:
    """Slices of the queries, each with the number of keys its last query sees."""
    count = -(-queries // TILE)
    edges = [queries * i // count for i in range(count + 1)]
    return ((slice(a, b), keys - queries + b) for a, b in pairwise(edges))


def _shares(scores: Float[Tensor, "head q k"]) -> Iterator[slice]:
    step = max(1, SHARE // scores[0].numel())
    return (slice(i, i + step) for i in range(0, len(scores), step))


def _norm(x: Float[Tensor, "head d time"]) -> Tensor:
    return x.square().sum(1).amax().sqrt()
