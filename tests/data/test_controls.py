"""Controls: what they keep and what they destroy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.controls import shuffled
from structure_first.data.registry import PROCEDURAL, RULES, source
from structure_first.seeding import generator


@pytest.mark.parametrize("name", [*PROCEDURAL, "haystack"])
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32))
def test_shuffling_keeps_tokens_mask_and_pads(name, seed):
    inner = source(name, **({"length": 32} if "length" in RULES[name].defaults else {}))
    outer = shuffled(inner)
    plain, mixed = (each.draw(8, generator("cpu", seed)) for each in (inner, outer))
    assert (outer.name, outer.vocab, outer.length, outer.window) == (
        f"shuffled:{name}",
        inner.vocab,
        inner.length,
        inner.window,
    )
    assert torch.equal(plain.loss_mask, mixed.loss_mask)
    assert torch.equal(plain.tokens.sort(1).values, mixed.tokens.sort(1).values)
    assert not torch.equal(plain.tokens, mixed.tokens)
    if "vocab" in inner.settings:
        pad = inner.vocab - 1
        assert torch.equal(plain.tokens == pad, mixed.tokens == pad)


def test_shuffling_loses_no_token_of_a_sequence_longer_than_two_bytes_can_count():
    inner = source("identity", length=40_000)
    plain, mixed = (each.draw(1, generator("cpu", 0)).tokens for each in (inner, shuffled(inner)))
    assert inner.length > 1 << 16 and torch.equal(plain.sort(1).values, mixed.sort(1).values)
    assert not torch.equal(plain, mixed)


def test_every_place_is_alike_after_shuffling():
    inner = source("identity", length=3, vocab=50_000)
    tokens, _ = shuffled(inner).draw(30_000, generator("cpu", 0))
    places = (tokens == 50_000).double().mean(0)  # where the separator landed
    assert (places - 1 / 7).abs().max() < 0.01


def test_shuffled_by_name_and_at_another_length():
    short = source("shuffled:dyck", k=4, length=64).at(16)
    assert (short.name, short.length, short.vocab) == ("shuffled:dyck", 16, 8)
    assert short.settings["k"] == 4 and short.settings["length"] == 16 and short.determined is None


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40) | st.just(2048), st.integers(2, 50_000), st.integers(0, 2**32))
def test_random_is_any_token(length, vocab, seed):
    drawn_from = source("random", length=length, vocab=vocab)
    tokens, loss_mask = drawn_from.draw(8, generator("cpu", seed))
    assert drawn_from.vocab == vocab and tokens.shape == (8, length)
    assert tokens.min() >= 0 and tokens.max() < vocab
    assert not loss_mask[:, 0].any() and loss_mask[:, 1:].all()


def test_random_is_uniform():
    counts = torch.bincount(source("random", vocab=7).draw(1000, generator("cpu", 0)).tokens.flatten()).double()
    expected = counts.sum() / 7
    assert len(counts) == 7 and (counts - expected).abs().max() < 6 * expected.sqrt()
