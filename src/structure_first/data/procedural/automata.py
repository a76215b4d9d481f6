"""Automata: cells whose next state follows from a fixed local rule."""

import zlib
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.common import predicted_from
from structure_first.errors import UserError

CHANNELS, HIDDEN = 4, 16  # of the network that is a rule (Lee et al. 2026)
DISCARDED = 10  # grids before the first that is read (the same)
JUDGED = 10  # grids by whose compressed size a rule is judged (the same)
GZIP_MORE = 12  # bytes that gzip's head and tail are longer than zlib's
AT_ONCE = 512  # rules tried together
MOST_TRIED = 1 << 14  # one after another without a success
LEAST = 1e-30  # lost beside any logit but 0, which with the last bits alone would be below the normal numbers
ID_BITS = 15  # the last bits of a logit, which hold the state that it is for


def eca(count: int, generator: torch.Generator, *, length: int = 128, width: int = 16, rule: int = 110) -> Batch:
    """The successive states of a ring of cells under an elementary cellular automaton, laid end to end as bits.

    The first state is random. The new value of a cell is bit 4 * left + 2 * cell + right of the rule's number, as
    Wolfram numbers them; Jiang et al. 2026 use rule 110. Loss is on every state but the first. `length` bits hold
    length / width states; the paper's sizes are not known, 128 is the longest sequence of its diagnostics.
    """
    device = generator.device
    states = torch.empty(length // width, count, width, dtype=torch.uint8, device=device)
    states[0].random_(2, generator=generator)
    for state, following in pairwise(states):
        neighbourhood = 4 * state.roll(1, 1) + 2 * state + state.roll(-1, 1)
        following.copy_((rule >> neighbourhood) & 1)
    return predicted_from(width, rearrange(states, "state batch cell -> batch (state cell)").long())


def nca(
    count: int,
    generator: torch.Generator,
    *,
    grids: int = 27,
    width: int = 12,
    states: int = 10,
    patch: int = 2,
    least: float = 0.5,
) -> Batch:
    """The successive grids of a torus of cells under a neural cellular automaton, a random network for each sequence.

    The network sees a cell and its eight neighbours, and a cell takes the state of its largest logit (Lee et al. 2026,
    who draw it at a temperature of 1e-4). A token is a patch of cells, read row by row; a start and an end stand around
    each grid, and the first bears no loss. Rules are drawn until one is neither simple nor noise: gzip leaves `least`
    to all of the bytes of its first ten grids. Weights are normal, of variance one over the inputs, which is not told.

    Raises `UserError` if no rule passes.
    """
    device, cells = generator.device, width * width
    near, passed, missing, failed = neighbours(width, device), [], count, 0
    while missing:
        rules = random_rules(min(AT_ONCE, 16 + 3 * missing), states, generator)
        weights = torch.empty(len(rules.mixing), states, device=device).exponential_(generator=generator)
        grid = torch.multinomial(weights, cells, replacement=True, generator=generator).int()
        for _ in range(DISCARDED):
            grid = advanced(rules, grid, near)
        seen = [grid]
        while len(seen) < JUDGED:
            seen.append(advanced(rules, seen[-1], near))
        chosen = complex_enough(patches(torch.stack(seen, 1), patch, states), least).nonzero().flatten()[:missing]
        rules = Rules(*(part[chosen] for part in rules))
        seen = [each[chosen] for each in seen]
        while len(seen) < grids:
            seen.append(advanced(rules, seen[-1], near))
        passed.append(patches(torch.stack(seen[:grids], 1), patch, states))
        missing -= len(chosen)
        failed = 0 if len(chosen) else failed + len(grid)
        if failed >= MOST_TRIED:
            raise UserError(f"nca: of none of {failed:,} rules gzip leaves {least:g} or more of the bytes; lower least")
    tokens, start = torch.cat(passed), states ** (patch * patch)
    marked = F.pad(F.pad(tokens, (1, 0), value=start), (0, 1), value=start + 1)
    return predicted_from(marked.shape[2], rearrange(marked, "batch grid token -> batch (grid token)").contiguous())


class Rules(NamedTuple):
    """Networks, one a sequence: a 3 x 3 convolution of states, a hidden layer, the logits of states; no biases."""

    seeing: Float[Tensor, "rule place_state channel"]
    mixing: Float[Tensor, "rule hidden channel"]
    choosing: Float[Tensor, "rule state hidden"]


def random_rules(count: int, states: int, generator: torch.Generator) -> Rules:
    def normal(*shape: int, inputs: int) -> Float[Tensor, "..."]:
        return torch.randn(count, *shape, generator=generator, device=generator.device) * inputs**-0.5

    return Rules(
        normal(9 * states, CHANNELS, inputs=9 * states),
        normal(HIDDEN, CHANNELS, inputs=CHANNELS),
        normal(states, HIDDEN, inputs=HIDDEN),
    )


def neighbours(width: int, device: torch.device | str = "cpu") -> Int[Tensor, "cell_place"]:
    """The cells around each cell of a torus, itself among them, row by row."""
    cell = torch.arange(width * width, device=device).view(width, width)
    around = [cell.roll((-down, -right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return torch.stack(around, -1).flatten()


def advanced(rules: Rules, grid: Int[Tensor, "rule cell"], near: Int[Tensor, "cell_place"]) -> Int[Tensor, "rule cell"]:
    """The next state of every cell. A one-hot input picks a row of the convolution: so it is a sum of rows."""
    (count, rows, _), states = rules.seeing.shape, rules.choosing.shape[1]
    offset = torch.arange(9, dtype=torch.int32, device=grid.device).repeat(grid.shape[1]) * states
    row = grid.index_select(1, near) + offset
    row += rows * torch.arange(count, dtype=torch.int32, device=grid.device)[:, None]
    seen = F.embedding_bag(row.view(-1, 9), rules.seeing.flatten(0, 1), mode="sum").view(*grid.shape, CHANNELS)
    logits = (rules.choosing @ (rules.mixing @ seen.mT).relu_()).add_(LEAST)
    # The largest logit's state, in a tenth of argmax's time: each logit's last bits say whose it is.
    state = torch.arange(states, dtype=torch.int32, device=grid.device)[:, None]
    logits.view(torch.int32).bitwise_and_(~ID_BITS).bitwise_or_(state)
    return logits.amax(1).view(torch.int32) & ID_BITS


def patches(grids: Int[Tensor, "rule grid cell"], patch: int, states: int) -> Int[Tensor, "rule grid token"]:
    """Each grid as tokens, a patch a token: its cells, row by row, are the digits, the last the highest."""
    width = round(grids.shape[2] ** 0.5)
    split = "rule grid (down i across j) -> rule grid (down across) (i j)"
    digits = rearrange(grids, split, i=patch, j=patch, down=width // patch)
    return (digits * states ** torch.arange(patch * patch, device=grids.device)).sum(-1)


def complex_enough(tokens: Int[Tensor, "rule grid token"], least: float) -> Bool[Tensor, " rule"]:
    """Of which rules gzip leaves `least` to all of the grids, as tokens of four bytes (Lee et al. 2026)."""
    raw = tokens.flatten(1).int().cpu().numpy()
    ratio = torch.tensor([(len(zlib.compress(each, 9)) + GZIP_MORE) / each.nbytes for each in raw])
    return ((ratio >= least) & (ratio <= 1)).to(tokens.device)
