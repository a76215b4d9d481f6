"""Memory: operations on a data structure, and what it holds in the end."""

import torch
from einops import rearrange

from structure_first.data.batch import Batch
from structure_first.data.common import distinct, question


def stack(count: int, generator: torch.Generator, *, length: int = 64, vocab: int = 100, forced: int = 2) -> Batch:
    """Pushes and pops, a separator, and what is then on the stack, top first; padded.

    A push is the token pushed, one that is not on the stack; a pop is 0. With `forced` entries or fewer it
    pushes; otherwise it pushes with probability 0.75 in the first two thirds of the operations and 0.25 after. The last
    operation is a pop if there is more than one entry, so the stack is never left empty (Jiang et al. 2026,
    procedural data appendix; their code has `forced` 1).
    """
    device = generator.device
    chance = torch.where(torch.arange(length, device=device) < 2 * length // 3, 0.75, 0.25)
    coin = torch.rand(length, 1, count, generator=generator, device=device) < rearrange(chance, "time -> time 1 1")
    choice = torch.rand(length, 1, count, dtype=torch.float64, generator=generator, device=device)

    # One column holds the stack (rows 0 .. height - 1, the top last), then the tokens seen and popped again, then, in
    # random order, those never seen: a push swaps a free token to the top. Any unseen token is as good as the next.
    pool = 1 + distinct(count, min(length, vocab - 1), vocab - 1, generator)
    height = torch.zeros(1, count, dtype=torch.long, device=device)
    seen = torch.zeros(1, count, dtype=torch.long, device=device)
    operations = torch.empty(length, count, dtype=torch.long, device=device)
    for t in range(length):
        pushes = height <= 1 if t == length - 1 else coin[t] | (height <= forced)
        top = height - (~pushes).long()
        free = (choice[t] * (vocab - 1 - height)).long()
        row = top + pushes * torch.minimum(free, seen - height)
        token, other = pool.gather(0, row), pool.gather(0, top)
        pool.scatter_(0, row, other).scatter_(0, top, token)
        operations[t] = (token * pushes)[0]
        seen = torch.maximum(seen, row + 1)
        height = top + pushes

    from_top = height - 1 - rearrange(torch.arange(length, device=device), "place -> place 1")
    answer = torch.where(from_top >= 0, pool.gather(0, from_top.clamp(min=0)), vocab + 1)
    across = "time batch -> batch time"
    return question(rearrange(operations, across), answer=rearrange(answer, across), vocab=vocab)
