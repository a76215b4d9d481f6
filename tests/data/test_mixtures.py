"""Mixtures: every sequence is of one member, and each as often."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.batch import Batch, Source
from structure_first.data.mixtures import mixture
from structure_first.data.registry import PROCEDURAL, source
from structure_first.errors import UserError
from structure_first.seeding import generator

names = st.lists(st.sampled_from(sorted(PROCEDURAL)), min_size=2, max_size=4, unique=True)


@settings(max_examples=30)
@given(names)
def test_a_mixture_is_as_wide_and_as_long_as_its_members(chosen):
    given = {"length": 32, "vocab": 40, "k": 8, "width": 8}
    own = [{key: given[key] for key in given if key in PROCEDURAL[each].defaults} for each in chosen]
    made = source("+".join(chosen), **{key: value for each in own for key, value in each.items()})
    members = [source(each, **settings) for each, settings in zip(chosen, own, strict=True)]
    for name in ("vocab", "length", "window"):
        assert getattr(made, name) == max(getattr(each, name) for each in members)
    tokens, loss_mask = made.draw(16, generator("cpu", 0))
    assert tokens.shape == loss_mask.shape == (16, made.length)
    assert tokens.min() >= 0 and tokens.max() < made.vocab and loss_mask.any(1).all()


def member(token: int, length: int) -> Source:
    """A source of one sequence: its token all along, with loss from the second place on."""

    def draw(count: int, generator: torch.Generator) -> Batch:
        return Batch(torch.full((count, length), token), torch.arange(length).expand(count, -1) > 0)

    return Source(f"m{token}", {}, token + 1, length, length, "nothing", draw)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 2**32))
def test_each_sequence_is_a_member_s_and_ends_in_zeros_without_loss(lengths, seed):
    tokens, loss_mask = mixture([member(*each) for each in enumerate(lengths, 1)]).draw(64, generator("cpu", seed))
    for sequence, bears_loss in zip(tokens.tolist(), loss_mask.tolist(), strict=True):
        token = sequence[0]
        length, rest = lengths[token - 1], max(lengths) - lengths[token - 1]
        assert sequence == [token] * length + [0] * rest
        assert bears_loss == [False] + [True] * (length - 1) + [False] * rest


def test_members_are_as_likely():
    made = source("identity+dyck", length=8, vocab=300, k=2)  # brackets are below 4: told apart by their tokens
    tokens, loss_mask = made.draw(4000, generator("cpu", 0))
    brackets = (tokens[:, :8] < 4).all(1)
    assert abs(int(brackets.sum()) - 2000) < 200
    assert (tokens[brackets, 8:] == 0).all() and not loss_mask[brackets, 8:].any()
    copies = tokens[~brackets]
    assert torch.equal(copies[:, :8], copies[:, 9:])


def test_its_settings_are_those_of_its_members():
    made = source("set+dyck")
    ours, theirs = source("set").settings, source("dyck").settings
    assert ours["length"] != theirs["length"] and made.length_setting is None
    told = {"length of set": ours["length"], "length of dyck": theirs["length"]}
    assert told.items() <= made.settings.items() and made.settings["k"] == theirs["k"]
    assert source("set+dyck", length=32).length_setting == 32, "of both"


def test_a_setting_of_no_member_is_named():
    with pytest.raises(UserError, match="did you mean 'length'"):
        source("identity+set", lenght=8)
    with pytest.raises(UserError, match="did you mean 'dyck'"):
        source("identity+dick")
