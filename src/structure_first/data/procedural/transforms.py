"""Transforms: random content, a separator, and the content changed by a fixed rule.

Tokens 1 .. vocab - 1 are content, `vocab` is the separator and `vocab + 1` the pad; only the answer bears loss. Length
64 and vocabulary 100 are the semantic stage's (Jiang et al. 2026, procedural data appendix).
"""

import torch
from jaxtyping import Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.common import ascending, question


def identity(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100) -> Batch:
    """Random tokens, a separator, and the same tokens again."""
    x = content(count, length, vocab, generator)
    return question(x, answer=x, vocab=vocab)


def reverse(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100) -> Batch:
    """Random tokens, a separator, and the same tokens from last to first."""
    x = content(count, length, vocab, generator)
    return question(x, answer=x.flip(1), vocab=vocab)


def sort(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100) -> Batch:
    """Random tokens, a separator, and the same tokens in ascending order."""
    x = content(count, length, vocab, generator)
    return question(x, answer=ascending(x), vocab=vocab)


def set(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100) -> Batch:
    """Random tokens, a separator, and the same tokens without repeats, first occurrences in order; padded."""
    x = content(count, length, vocab, generator)
    return question(x, answer=without_repeats(x, pad=vocab + 1), vocab=vocab)


def union(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100) -> Batch:
    """Two runs of random tokens, each half the length, each with a separator after it, and the distinct tokens of the
    first run, then of the second, in order of first appearance; padded."""
    x = content(count, length, vocab, generator)
    return question(*x.chunk(2, 1), answer=without_repeats(x, pad=vocab + 1), vocab=vocab)


def delete(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100, absent: int = 0) -> Batch:
    """Random tokens, a separator, one of those tokens (any, if `absent` is 1), a separator, and the tokens without its
    first occurrence.

    The token to delete is that at a random position, so it always occurs and every answer has length - 1 tokens. In the
    authors' code it may be `absent`: where it does not occur, the answer is all of them.
    """
    x = content(count, length, vocab, generator)
    if absent:
        target = content(count, 1, vocab, generator)
    else:
        target = x.gather(1, torch.randint(length, (count, 1), generator=generator, device=x.device))
    first_at = (torch.cat([x, target], 1) == target).byte().argmax(1, keepdim=True)
    index = torch.arange(length if absent else length - 1, device=x.device)
    padded = torch.cat([x, torch.full_like(target, vocab + 1)], 1)
    return question(x, target, answer=padded.gather(1, index + (index >= first_at)), vocab=vocab)


def content(count: int, length: int, vocab: int, generator: torch.Generator) -> Int[Tensor, "batch length"]:
    """Content tokens, each equally likely at each position."""
    return torch.randint(1, vocab, (count, length), generator=generator, device=generator.device)


def without_repeats(x: Int[Tensor, "batch length"], pad: int) -> Int[Tensor, "batch length"]:
    """The first occurrences in each row, in order, moved to the front; pads fill the row."""
    count, length = x.shape
    keys = ascending(x << 16 | torch.arange(length, device=x.device))  # equal tokens side by side, the earliest first
    is_first = torch.ones_like(x, dtype=torch.bool)
    is_first[:, 1:] = keys[:, 1:] >> 16 != keys[:, :-1] >> 16
    is_first = torch.empty_like(is_first).scatter_(1, keys & 0xFFFF, is_first)
    column = torch.where(is_first, is_first.cumsum(1) - 1, length)  # repeats all land in one spare column
    return x.new_full((count, length + 1), pad).scatter_(1, column, x)[:, :length]
