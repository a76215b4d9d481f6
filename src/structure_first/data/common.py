"""The few pieces that generators share."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from structure_first.data.batch import Batch


def predicted_from(start: int, tokens: Int[Tensor, "batch time"]) -> Batch:
    """A batch whose every token from position `start` on bears loss."""
    count, time = tokens.shape
    bears_loss = torch.arange(time, device=tokens.device) >= start
    return Batch(tokens, bears_loss.repeat(count, 1))


def question(*inputs: Int[Tensor, "batch _"], answer: Int[Tensor, "batch answer"], vocab: int) -> Batch:
    """Each input and a separator, then the answer, which alone bears loss, its pads excepted."""
    separator = answer.new_full((len(answer), 1), vocab)
    tokens = torch.cat([part for given in inputs for part in (given, separator)] + [answer], 1)
    loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
    loss_mask[:, -answer.shape[1] :] = answer != vocab + 1
    return Batch(tokens, loss_mask)


def distinct(count: int, n: int, below: int, generator: torch.Generator) -> Int[Tensor, "n batch"]:
    """`n` different numbers out of 0 .. below - 1 in random order, every choice equally likely.

    The i-th is first drawn as its rank among the numbers that the i before it left over; going back from the last, each
    rank is then lifted over the earlier numbers that it does not lie below. Memory does not grow with `below`.
    """
    device = generator.device
    left_over = torch.arange(below, below - n, -1, device=device)[:, None]
    ranks = torch.rand(n, count, dtype=torch.float64, generator=generator, device=device)
    numbers = (ranks * left_over).to(torch.int32)
    for i in reversed(range(n - 1)):
        later = numbers[i + 1 :]
        later += later >= numbers[i]
    return numbers.long()


def ascending(keys: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Each row in ascending order; on a CPU by numpy, whose sort is vectorised and ten times as fast as torch's."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy(), axis=1))
    return keys.sort(1).values
