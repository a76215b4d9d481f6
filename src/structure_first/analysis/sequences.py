"""What sequences hold: what their positions tell of each other, and which of their brackets pair."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot


def mutual_information(tokens: Int[Tensor, "count time"]) -> Float[np.ndarray, "time time"]:
    """Bits that each position tells of each other; on the diagonal, what there is to know.

    Independent positions seem to tell something in any finite sample (2 count ln 2 times the estimate has a chi-square
    distribution); that much is taken off, and what does not stand out from it by four deviations is none.
    """
    count = len(tokens)
    seen = one_hot(tokens).float()
    alone = seen.mean(0)
    joint = einsum(seen, seen, "count i a, count j b -> i j a b") / count
    expected = einsum(alone, alone, "i a, j b -> i j a b")
    bits = torch.where(joint > 0, joint * torch.log2(joint / expected), 0).sum((2, 3))
    kinds = (alone > 0).sum(1) - 1
    freedom = einsum(kinds, kinds, "i, j -> i j")
    chance, deviation = (each / (2 * count * np.log(2)) for each in (freedom, (2 * freedom).sqrt()))
    itself = torch.eye(len(kinds)) > 0
    return torch.where(itself, bits, (bits - chance) * (bits > chance + 4 * deviation)).numpy()


def partners(word: Sequence[int], k: int) -> list[int | None]:
    """Where the bracket stands that each bracket pairs with: the nearest open one of its type, or none."""
    partner: list[int | None] = [None] * len(word)
    still_open: dict[int, list[int]] = {}
    for t, token in enumerate(word):
        waiting = still_open.setdefault(token % k, [])
        if token < k:
            waiting.append(t)
        elif waiting:
            opener = waiting.pop()
            partner[t], partner[opener] = opener, t
    return partner
