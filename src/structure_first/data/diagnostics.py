"""Diagnostics: the small tasks of stage two, each a question whose answer alone bears loss.

Rules and sizes are those of Jiang et al. 2026, algorithmic tasks appendix; the ids of the signs and the sizes of
`sorting` are ours. Arithmetic is zero-padded; the authors' code draws it as with `leading_zeros=0` and `shifted=1`.
"""

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.common import distinct
from structure_first.data.procedural import transforms

KEYS = 30  # there are as many key ids, whatever the number of pairs
KEY, QUERY = 128, 158  # the token of key a is a + KEY, that of the query for it a + QUERY
PLUS, TIMES, EQUALS, PAD, OUTPUT, STOP = 10, 11, 12, 13, 20, 30  # input digits are 0 .. 9, output digit d is d + OUTPUT


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


def addition(
    count: int, generator: torch.Generator, *, digits: int = 5, leading_zeros: int = 1, shifted: int = 0
) -> Batch:
    """a + b = and the sum, most significant digit first; zero-padded, unless `leading_zeros` is 0.

    Then the numbers have just `digits` digits, and the sum as many as it needs; a pad fills what is short. With
    `shifted` 1 the loss is one token late: not on the sum's first digit, but on a pad after the stop.
    """
    a, b = (number(count, digits, generator, leading_zeros) for _ in "ab")
    return equation(a.flip(1), PLUS, b.flip(1), total(a, b).flip(1), leading_zeros, shifted)


def reversed_addition(
    count: int, generator: torch.Generator, *, digits: int = 10, leading_zeros: int = 1, shifted: int = 0
) -> Batch:
    """a + b = and the sum, least significant digit first; zero-padded, unless `leading_zeros` is 0.

    `leading_zeros` and `shifted` as for `addition`; what leads stands last here.
    """
    a, b = (number(count, digits, generator, leading_zeros) for _ in "ab")
    return equation(a, PLUS, b, total(a, b), leading_zeros, shifted, reverse=True)


def multiplication(
    count: int, generator: torch.Generator, *, digits: int = 5, leading_zeros: int = 1, shifted: int = 0
) -> Batch:
    """a * b = and the product, most significant digit first; zero-padded, unless `leading_zeros` is 0.

    `leading_zeros` and `shifted` as for `addition`; without leading zeros a pad always follows.
    """
    a, b = (number(count, digits, generator, leading_zeros) for _ in "ab")
    return equation(a.flip(1), TIMES, b.flip(1), product(a, b).flip(1), leading_zeros, shifted, room=1 - leading_zeros)


def sorting(count: int, generator: torch.Generator, *, length: int = 32, vocab: int = 50) -> Batch:
    """Random tokens, a separator, and the same tokens in ascending order: stage one's `sort`, other sizes."""
    return transforms.sort(count, generator, length=length, vocab=vocab)


def number(count: int, digits: int, generator: torch.Generator, leading_zeros: int = 1) -> Int[Tensor, "batch digits"]:
    """Random numbers of at most, or of just so many digits, each equally likely, least significant digit first."""
    device = generator.device
    drawn = torch.randint(10, (count, digits), generator=generator, device=device)
    if not leading_zeros:
        drawn[:, -1] = torch.randint(1, 10, (count,), generator=generator, device=device)
    return drawn


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
    """Single digits of the number whose place values are these sums, least significant first; made in their place."""
    for place in range(columns.shape[1] - 1):
        columns[:, place + 1] += columns[:, place] // 10
    return columns % 10


def equation(
    a: Int[Tensor, "batch digits"],
    sign: int,
    b: Int[Tensor, "batch digits"],
    answer: Int[Tensor, "batch answer"],
    leading_zeros: int,
    shifted: int,
    reverse: bool = False,
    room: int = 0,
) -> Batch:
    """a, the sign, b and =, then the answer in output digits, the stop, and pads where the answer is short, with `room`
    for more of them.

    The answer and the stop bear loss, or, if `shifted`, what follows on each of them.
    """
    mark, (count, width) = a.new_ones(len(a), 1), answer.shape
    shown = mark * width
    if not leading_zeros:
        shown = shown - ((answer.flip(1) if reverse else answer).cumsum(1) == 0).sum(1, keepdim=True)
    place = torch.arange(width + 1 + room, device=a.device)
    index = place if reverse else place + width - shown
    digits = answer.gather(1, index.expand(count, -1).clamp(max=width - 1))
    written = torch.where(place < shown, digits + OUTPUT, torch.where(place == shown, STOP, PAD))
    given = torch.cat([a, sign * mark, b, EQUALS * mark], 1)
    bears_loss = (place >= shifted) & (place <= shown + shifted)
    return Batch(torch.cat([given, written], 1), torch.cat([torch.zeros_like(given, dtype=torch.bool), bears_loss], 1))
