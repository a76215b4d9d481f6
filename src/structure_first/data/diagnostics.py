"""Diagnostics: the small tasks of stage two, each a question whose answer alone bears loss.

Rules and sizes are those of Jiang et al. 2026, algorithmic tasks appendix; the ids of the signs and the sizes of
`sorting` are ours.
"""

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.common import distinct, predicted_from
from structure_first.data.procedural import transforms

KEYS = 30  # there are as many key ids, whatever the number of pairs
KEY, QUERY = 128, 158  # the token of key a is a + KEY, that of the query for it a + QUERY
PLUS, TIMES, EQUALS, OUTPUT, STOP = 10, 11, 12, 20, 30  # input digits are 0 .. 9, output digit d is d + OUTPUT


def haystack(count: int, generator: torch.Generator, *, pairs: int = 30) -> Batch:
    """Pairs of a key and a value, then a query for one of the keys, and its value.

    A sequence has 1 .. `pairs` pairs, each as often, and the rest is padded with 0; keys are distinct, of `pairs`
    ids, values are 1 .. 127. A guess among the values shown is thus right in `mean(1 / n)` of the sequences.
    """
    device = generator.device
    keys = rearrange(distinct(count, pairs, pairs, generator), "pair batch -> batch pair")
    values = torch.randint(1, KEY, (count, pairs), generator=generator, device=device)
    shown = torch.randint(1, pairs + 1, (count, 1), generator=generator, device=device)
    queried = (torch.rand(count, 1, generator=generator, device=device) * shown).long()
    tokens = rearrange([keys + KEY, values], "side batch pair -> batch (pair side)")
    tokens = torch.cat([tokens, torch.zeros_like(tokens[:, :2])], 1)
    offset = torch.arange(tokens.shape[1], device=device) - 2 * shown
    tokens = torch.where(offset < 0, tokens, 0)
    tokens = torch.where(offset == 0, keys.gather(1, queried) + QUERY, tokens)
    return Batch(torch.where(offset == 1, values.gather(1, queried), tokens), offset == 1)


def addition(count: int, generator: torch.Generator, *, digits: int = 5) -> Batch:
    """a + b = and the sum, every number zero-padded and most significant digit first."""
    a, b = number(count, digits, generator), number(count, digits, generator)
    return equation(a.flip(1), PLUS, b.flip(1), total(a, b).flip(1))


def reversed_addition(count: int, generator: torch.Generator, *, digits: int = 10) -> Batch:
    """a + b = and the sum, every number zero-padded and least significant digit first."""
    a, b = number(count, digits, generator), number(count, digits, generator)
    return equation(a, PLUS, b, total(a, b))


def multiplication(count: int, generator: torch.Generator, *, digits: int = 5) -> Batch:
    """a * b = and the product, every number zero-padded and most significant digit first."""
    a, b = number(count, digits, generator), number(count, digits, generator)
    return equation(a.flip(1), TIMES, b.flip(1), product(a, b).flip(1))


def sorting(count: int, generator: torch.Generator, *, length: int = 32, vocab: int = 50) -> Batch:
    """Random tokens, a separator, and the same tokens in ascending order: stage one's `sort`, other sizes."""
    return transforms.sort(count, generator, length=length, vocab=vocab)


def number(count: int, digits: int, generator: torch.Generator) -> Int[Tensor, "batch digits"]:
    """Random numbers, every one below 10 ** digits equally likely, least significant digit first."""
    return torch.randint(10, (count, digits), generator=generator, device=generator.device)


def total(a: Int[Tensor, "batch digits"], b: Int[Tensor, "batch digits"]) -> Int[Tensor, "batch sum"]:
    """The digits of a + b, one more than either has."""
    return carried(torch.nn.functional.pad(a + b, (0, 1)))


def product(a: Int[Tensor, "batch digits"], b: Int[Tensor, "batch digits"]) -> Int[Tensor, "batch product"]:
    """The digits of a * b, twice as many as either has: long multiplication, all carries last."""
    digits = a.shape[1]
    columns = a.new_zeros(len(a), 2 * digits)
    for place in range(digits):
        columns[:, place : place + digits] += a[:, place : place + 1] * b
    return carried(columns)


def carried(columns: Int[Tensor, "batch place"]) -> Int[Tensor, "batch place"]:
    """Single digits of the number whose place values are these sums, least significant first."""
    columns = columns.clone()
    for place in range(columns.shape[1] - 1):
        columns[:, place + 1] += columns[:, place] // 10
    return columns % 10


def equation(
    a: Int[Tensor, "batch digits"], sign: int, b: Int[Tensor, "batch digits"], answer: Int[Tensor, "batch answer"]
) -> Batch:
    """a, the sign, b and =, then the answer in output digits and the stop; both bear loss."""
    mark = a.new_ones(len(a), 1)
    tokens = torch.cat([a, sign * mark, b, EQUALS * mark, answer + OUTPUT, STOP * mark], 1)
    return predicted_from(2 * a.shape[1] + 2, tokens)
