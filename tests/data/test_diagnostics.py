"""Every diagnostic against plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.registry import DIAGNOSTICS, source
from structure_first.seeding import generator

seeds = st.integers(0, 2**32)


def rows(name: str, seed: int, count: int = 8, **chosen) -> list[list[int]]:
    """The sequences of a draw, once their mask is known to cover the answer and nothing else."""
    drawn_from = source(name, **chosen)
    tokens, loss_mask = drawn_from.draw(count, generator("cpu", seed))
    assert tokens.shape == (count, drawn_from.length) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < drawn_from.vocab
    assert torch.equal(loss_mask, (torch.arange(drawn_from.length) >= drawn_from.loss_from).expand_as(tokens))
    return tokens.tolist()


@settings(deadline=None)
@given(st.integers(1, 30), seeds)
def test_haystack_answers_its_query(pairs, seed):
    assert source("haystack", pairs=pairs).vocab == 256
    assert source("haystack", pairs=pairs).loss_from == 2 * pairs + 1
    for tokens in rows("haystack", seed, pairs=pairs):
        *shown, query, answer = tokens
        held = dict(zip(shown[::2], shown[1::2], strict=True))
        assert len(held) == pairs and all(128 <= key < 158 and 1 <= value < 128 for key, value in held.items())
        assert held[query - 30] == answer


def test_haystack_uses_every_key_value_and_place_alike():
    tokens, _ = source("haystack", pairs=3).draw(30_000, generator("cpu", 0))
    asked = (tokens[:, 0:6:2] == tokens[:, 6:7] - 30).long().argmax(1)
    for drawn, ids in ((tokens[:, 0:6:2], range(128, 158)), (tokens[:, 1:6:2], range(1, 128)), (asked, range(3))):
        counts = torch.bincount(drawn.flatten(), minlength=max(ids) + 1)[min(ids) :].double()
        expected = drawn.numel() / len(ids)
        assert (counts - expected).abs().max() < 6 * expected**0.5


SIGNS = {
    "addition": (10, int.__add__, 1),
    "reversed_addition": (10, int.__add__, -1),
    "multiplication": (11, int.__mul__, 1),
}


@pytest.mark.parametrize("name", SIGNS)
@settings(deadline=None, max_examples=40)
@given(st.one_of(st.integers(1, 12), st.just(60)), seeds)
def test_arithmetic_is_right(name, digits, seed):
    sign, operation, order = SIGNS[name]
    for tokens in rows(name, seed, digits=digits):
        a, b, answer = tokens[:digits], tokens[digits + 1 : 2 * digits + 1], tokens[2 * digits + 2 : -1]
        assert (tokens[digits], tokens[2 * digits + 1], tokens[-1]) == (sign, 12, 30)
        assert all(0 <= digit < 10 for digit in a + b)
        a, b, answer = (int("".join(map(str, each[::order]))) for each in (a, b, [digit - 20 for digit in answer]))
        assert operation(a, b) == answer
    assert source(name, digits=digits).loss_from == 2 * digits + 2
    width = 2 * digits if name == "multiplication" else digits + 1
    assert source(name, digits=digits).length == 2 * digits + 2 + width + 1


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.integers(1, 40), st.just(2048)), st.integers(2, 50_000), seeds)
def test_sorting(length, vocab, seed):
    for tokens in rows("sorting", seed, length=length, vocab=vocab):
        assert tokens[length] == vocab
        assert tokens[length + 1 :] == sorted(tokens[:length])


def test_sorting_differs_from_stage_ones_sort():
    assert source("sorting").length != source("sort").length and source("sorting").vocab != source("sort").vocab


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_same_seed_same_sequences(name):
    first, again, other = (source(name).draw(64, generator("cpu", seed)).tokens for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
