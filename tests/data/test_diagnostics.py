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
    first = drawn_from.length - drawn_from.window
    assert torch.equal(loss_mask, (torch.arange(drawn_from.length) >= first).expand_as(tokens))
    return tokens.tolist()


@settings(deadline=None)
@given(st.integers(1, 30), seeds)
def test_haystack_answers_its_query(pairs, seed):
    drawn_from = source("haystack", pairs=pairs)
    assert (drawn_from.vocab, drawn_from.length, drawn_from.window) == (256, 2 * pairs + 2, 1)
    drawn = drawn_from.draw(8, generator("cpu", seed))
    for tokens, mask in zip(*(tensor.tolist() for tensor in drawn), strict=True):
        place = mask.index(True)
        assert sum(mask) == 1 and not any(tokens[place + 1 :])
        *shown, query, answer = tokens[: place + 1]
        held = dict(zip(shown[::2], shown[1::2], strict=True))
        assert 1 <= len(held) == len(shown) // 2 <= pairs
        assert all(128 <= key < 128 + pairs and 1 <= value < 128 for key, value in held.items())
        assert held[query - 30] == answer


def test_haystack_uses_every_key_value_and_place_alike():
    tokens, mask = source("haystack", pairs=3).draw(90_000, generator("cpu", 0))
    shown = mask.long().argmax(1) // 2
    tokens = tokens[shown == 3]
    asked = (tokens[:, 0:6:2] == tokens[:, 6:7] - 30).long().argmax(1)
    every = ((tokens[:, 0:6:2], range(128, 131)), (tokens[:, 1:6:2], range(1, 128)), (asked, range(3)))
    for drawn, ids in (*every, (shown, range(1, 4))):
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
    assert source(name, digits=digits).length - source(name, digits=digits).window == 2 * digits + 2
    width = 2 * digits if name == "multiplication" else digits + 1
    assert source(name, digits=digits).length == 2 * digits + 2 + width + 1


@pytest.mark.parametrize("name", SIGNS)
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(0, 1), st.integers(0, 1), seeds)
def test_arithmetic_as_the_authors_code_draws_it(name, digits, leading_zeros, shifted, seed):
    sign, operation, order = SIGNS[name]
    drawn_from = source(name, digits=digits, leading_zeros=leading_zeros, shifted=shifted)
    batch = drawn_from.draw(8, generator("cpu", seed))
    assert batch.tokens.shape == (8, drawn_from.length)
    for tokens, mask in zip(*(tensor.tolist() for tensor in batch), strict=True):
        numbers = tokens[:digits], tokens[digits + 1 : 2 * digits + 1]
        assert leading_zeros or all(each[::order][0] for each in numbers)
        a, b = (int("".join(map(str, each[::order]))) for each in numbers)
        width = (2 * digits if name == "multiplication" else digits + 1) if leading_zeros else 0
        answer = [20 + int(digit) for digit in str(operation(a, b)).zfill(width)[::order]] + [30]
        written = [*numbers[0], sign, *numbers[1], 12, *answer]
        assert tokens[: len(written)] == written and set(tokens[len(written) :]) <= {13}
        follows = [20 <= before <= 30 for before in [0, *tokens[:-1]]]  # as their code masks what it predicts
        assert mask == (follows if shifted else [20 <= token <= 30 for token in tokens])
    assert drawn_from.length - drawn_from.window == 2 * digits + 2 + shifted


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.integers(1, 40), st.just(2048)), st.integers(2, 50_000), seeds)
def test_sorting(length, vocab, seed):
    for tokens in rows("sorting", seed, length=length, vocab=vocab):
        assert tokens[length] == vocab
        assert tokens[length + 1 :] == sorted(tokens[:length])


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_same_seed_same_sequences(name):
    first, again, other = (source(name).draw(64, generator("cpu", seed)).tokens for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
