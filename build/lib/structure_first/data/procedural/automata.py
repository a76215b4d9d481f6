"""Automata: a row of cells whose next state follows from a fixed local rule."""

from itertools import pairwise

import torch
from einops import rearrange

from structure_first.data.batch import Batch
from structure_first.data.parts import predicted_from


def eca(
    count: int,
    generator: torch.Generator,
    *,
    length: int = 128,
    width: int = 16,
    rule: int = 110,
) -> Batch:
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
