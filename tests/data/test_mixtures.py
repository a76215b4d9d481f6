"""Mixtures: every sequence is of one member, and each as often."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.registry import PROCEDURAL, source
from structure_first.errors import UserError
from structure_first.seeding import generator

names = st.lists(st.sampled_from(sorted(PROCEDURAL)), min_size=2, max_size=4, unique=True)


@settings(deadline=None, max_examples=30)
@given(names, st.integers(0, 2**32))
def test_each_sequence_is_of_a_member(chosen, seed):
    given = {"length": 32, "vocab": 40, "k": 8, "width": 8}
    own = [{key: given[key] for key in given if key in PROCEDURAL[each].defaults} for each in chosen]
    made = source("+".join(chosen), **{key: value for each in own for key, value in each.items()})
    members = [source(each, **settings) for each, settings in zip(chosen, own, strict=True)]
    assert made.vocab == max(each.vocab for each in members) and made.length == max(each.length for each in members)
    tokens, loss_mask = made.draw(64, generator("cpu", seed))
    assert tokens.shape == loss_mask.shape == (64, made.length)
    lengths = torch.tensor([each.length for each in members])
    for sequence, bears_loss in zip(tokens, loss_mask, strict=True):
        fits = [each for each in lengths if not sequence[each:].any() and not bears_loss[each:].any()]
        assert fits and bears_loss[: max(fits)].any()


def test_members_are_as_likely():
    made = source("identity+dyck", length=8, vocab=300, k=2)  # brackets are below 4: told apart by their tokens
    tokens, loss_mask = made.draw(4000, generator("cpu", 0))
    brackets = (tokens[:, :8] < 4).all(1)
    assert abs(int(brackets.sum()) - 2000) < 200
    assert (tokens[brackets, 8:] == 0).all() and not loss_mask[brackets, 8:].any()
    copies = tokens[~brackets]
    assert torch.equal(copies[:, :8], copies[:, 9:])


def test_a_setting_of_no_member_is_named():
    with pytest.raises(UserError, match="did you mean 'length'"):
        source("identity+set", lenght=8)
    with pytest.raises(UserError, match="did you mean 'dyck'"):
        source("identity+dick")
