"""Neural cellular automata against plain convolutions, and against what any automaton must do."""

import gzip
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.procedural import automata
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.seeding import generator
from structure_first.training.devices import flushed

SMALL = {"grids": 12, "width": 6, "states": 4, "patch": 2, "least": 0.4}


def grids_of(tokens: list[int], width: int, states: int, patch: int) -> list[list[list[int]]]:
    """The grids that a sequence tells of, after its marks are seen to stand where they should."""
    whole, start = (width // patch) ** 2 + 2, states ** (patch * patch)
    found = []
    for begin in range(0, len(tokens), whole):
        first, *inner, last = tokens[begin : begin + whole]
        assert (first, last) == (start, start + 1) and max(inner) < start
        grid = [[-1] * width for _ in range(width)]
        for number, token in enumerate(inner):
            down, across = divmod(number, width // patch)
            for i, j in product(range(patch), repeat=2):
                token, grid[patch * down + i][patch * across + j] = divmod(token, states)
        found.append(grid)
    return found


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_every_grid_follows_from_the_one_before_by_one_local_rule(seed):
    """Whatever the network is: cells with equal neighbourhoods go over into the same state, all through a sequence."""
    made = source("nca", **SMALL)
    tokens, loss_mask = made.draw(3, generator("cpu", seed))
    width = SMALL["width"]
    assert tokens.shape == (3, 12 * (9 + 2)) and tokens.max() < made.vocab == 4**4 + 2
    assert not loss_mask[:, :11].any() and loss_mask[:, 11:].all() and made.window == 11 * 11
    for sequence in tokens.tolist():
        rule = {}
        for before, after in pairwise(grids_of(sequence, width, SMALL["states"], SMALL["patch"])):
            for y, x in product(range(width), repeat=2):
                around = tuple(before[(y + i) % width][(x + j) % width] for i, j in product((-1, 0, 1), repeat=2))
                assert rule.setdefault(around, after[y][x]) == after[y][x]
        assert len(set(rule.values())) > 1


def test_a_step_is_three_convolutions_and_the_largest_logit():
    states, width, count = 5, 7, 20
    rules = automata.random_rules(count, states, generator("cpu", 0))
    grid = torch.randint(states, (count, width * width), generator=generator("cpu", 1)).int()
    found = automata.advanced(rules, grid, automata.neighbours(width))
    compared = 0
    for seeing, mixing, choosing, before, after in zip(*rules, grid, found, strict=True):
        cells = F.one_hot(before.long(), states).float().view(1, width, width, states).permute(0, 3, 1, 2)
        kernel = seeing.view(3, 3, states, automata.CHANNELS).permute(3, 2, 0, 1)
        seen = F.conv2d(F.pad(cells, (1, 1, 1, 1), mode="circular"), kernel)
        logits = F.conv2d(F.conv2d(seen, mixing[..., None, None]).relu(), choosing[..., None, None])[0].flatten(1)
        best = logits.topk(2, dim=0).values
        clear = best[0] - best[1] > 1e-4  # elsewhere rounding decides
        assert torch.equal(logits.argmax(0)[clear], after.long()[clear])
        compared += int(clear.sum())
    assert compared > 0.9 * grid.numel()


def test_a_training_draws_the_same_grids_though_it_flushes_what_is_not_normal():
    """Hidden units that are all silent leave logits of zero."""
    drawn = automata.random_rules(200, 10, generator("cpu", 0))
    silent = automata.Rules(drawn.seeing.abs(), -drawn.mixing.abs(), drawn.choosing)
    grid = torch.randint(10, (200, 36), generator=generator("cpu", 1)).int()
    for rules in (drawn, silent):
        outside = automata.advanced(rules, grid, automata.neighbours(6))
        with flushed():
            assert torch.equal(automata.advanced(rules, grid, automata.neighbours(6)), outside)


def test_rules_are_kept_by_what_gzip_leaves_of_ten_grids():
    tokens, _ = source("nca").draw(40, generator("cpu", 3))
    grids = tokens.view(40, 27, 38)[:, :10, 1:-1].int().numpy()
    shares = [len(gzip.compress(each.tobytes(), 9)) / each.nbytes for each in grids]
    assert min(shares) >= 0.5 and max(shares) <= 1
    noise = torch.randint(10_000, (50, 10, 36), generator=generator("cpu", 4))
    assert automata.complex_enough(noise, 0.6).all() and not automata.complex_enough(noise * 0, 0.05).any()


def test_the_settings_are_the_papers():
    made = source("nca")
    assert (made.vocab, made.length, made.window) == (10_002, 27 * 38, 26 * 38)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 9}, "nca: width must be a multiple of patch 2, not 9"),
        ({"states": 16, "patch": 3}, "nca: patches of 3 x 3 cells of 16 states are 68,719,476,736 tokens"),
        ({"grids": 1}, "nca: grids must be from 2 to 4,096, not 1"),
        ({"least": 0.9}, "nca: of none of .* rules gzip leaves 0.9 or more of the bytes; lower least"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(monkeypatch, settings, said):
    monkeypatch.setattr(automata, "MOST_TRIED", 500)  # not 16,384: the same loop, and the same line
    with pytest.raises(UserError, match=said):
        source("nca", **settings)
