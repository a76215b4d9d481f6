"""Every procedural sequence against plain Python: the rule replayed, and on tiny settings the exact distribution."""

from collections import Counter
from itertools import pairwise, product
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structure_first.data.registry import PROCEDURAL, source
from structure_first.seeding import generator

vocabs = st.one_of(st.integers(2, 12), st.integers(2, 50_000), st.just(50_000))
seeds = st.integers(0, 2**32)


def lengths(shortest: int, even: bool = False) -> st.SearchStrategy[int]:
    short = st.integers(shortest, 40).map(lambda n: n + n % 2 if even else n)
    return st.one_of(st.just(shortest), short, st.just(2048))


def rows(name: str, seed: int, count: int = 4, **chosen) -> list[tuple[list[int], list[bool]]]:
    """The sequences of a draw and their masks, after what holds for every source."""
    drawn_from = source(name, **chosen)
    tokens, loss_mask = drawn_from.draw(count, generator("cpu", seed))
    assert tokens.shape == loss_mask.shape == (count, drawn_from.length)
    assert tokens.dtype == torch.int64 and loss_mask.dtype == torch.bool
    assert tokens.min() >= 0 and tokens.max() < drawn_from.vocab
    first = drawn_from.length - drawn_from.window
    assert not loss_mask[:, :first].any() and loss_mask[:, first].all()
    return list(zip(tokens.tolist(), loss_mask.tolist(), strict=True))


def asked(tokens: list[int], mask: list[bool], vocab: int, inputs: int) -> tuple[list[list[int]], list[int]]:
    """The inputs and the answer of a question; the answer without its pads is what bears loss."""
    parts, rest = [], tokens
    for _ in range(inputs):
        cut = rest.index(vocab)
        parts.append(rest[:cut])
        rest = rest[cut + 1 :]
    answer = [token for token in rest if token != vocab + 1]
    assert rest == answer + [vocab + 1] * (len(rest) - len(answer))
    start = len(tokens) - len(rest)
    assert mask == [start <= t < start + len(answer) for t in range(len(tokens))]
    assert answer and vocab not in answer
    return parts, answer


ANSWERS = {
    "identity": lambda x: x,
    "reverse": lambda x: x[::-1],
    "sort": sorted,
    "set": lambda x: list(dict.fromkeys(x)),
}


@pytest.mark.parametrize("name", ANSWERS)
@settings(deadline=None, max_examples=40)
@given(lengths(1), vocabs, seeds)
def test_transform_of_one_input(name, length, vocab, seed):
    for tokens, mask in rows(name, seed, length=length, vocab=vocab):
        (x,), answer = asked(tokens, mask, vocab, inputs=1)
        assert len(x) == length and all(1 <= token < vocab for token in x)
        assert answer == ANSWERS[name](x)


@settings(deadline=None, max_examples=40)
@given(lengths(2, even=True), vocabs, seeds)
def test_union(length, vocab, seed):
    for tokens, mask in rows("union", seed, length=length, vocab=vocab):
        (a, b), answer = asked(tokens, mask, vocab, inputs=2)
        assert len(a) == len(b) == length // 2 and all(1 <= token < vocab for token in a + b)
        assert answer == list(dict.fromkeys(a + b))


@settings(deadline=None, max_examples=40)
@given(lengths(2), vocabs, st.integers(0, 1), seeds)
def test_delete(length, vocab, absent, seed):
    for tokens, mask in rows("delete", seed, length=length, vocab=vocab, absent=absent):
        (x, target), answer = asked(tokens, mask, vocab, inputs=2)
        assert len(x) == length and len(target) == 1 and all(1 <= token < vocab for token in x + target)
        if target[0] in x or not absent:
            x.remove(target[0])
        assert answer == x


@settings(deadline=None, max_examples=60)
@given(lengths(1), vocabs, st.integers(1, 5), seeds)
def test_stack_replays_to_its_answer(length, vocab, forced, seed):
    vocab = max(vocab, length + 1)
    for tokens, mask in rows("stack", seed, length=length, vocab=vocab, forced=forced):
        (operations,), answer = asked(tokens, mask, vocab, inputs=1)
        assert len(operations) == length
        stack = []
        for t, token in enumerate(operations):
            if t == length - 1:
                assert (token == 0) == (len(stack) > 1)
            elif len(stack) <= forced:
                assert token
            if token:
                assert 1 <= token < vocab and token not in stack
                stack.append(token)
            else:
                stack.pop()
        assert stack and answer == stack[::-1]


@settings(deadline=None, max_examples=40)
@given(lengths(2, even=True), st.integers(1, 25_000), st.floats(0, 1), st.none() | st.integers(1, 1500), seeds)
def test_dyck_closes_the_last_bracket_opened(length, k, p, depth, seed):
    for tokens, mask in rows("dyck", seed, count=3, length=length, k=k, p=p, depth=depth):
        stack = []
        for token in tokens:
            if token < k:
                stack.append(token)
                assert len(stack) <= (depth or length)
            else:
                assert stack.pop() == token - k
        assert not stack and mask == [False] + [True] * (length - 1)


@settings(deadline=None, max_examples=40)
@given(lengths(2, even=True), st.integers(1, 25_000), st.floats(0, 1), st.integers(1, 1500), seeds)
def test_dyck_shuffle_closes_every_type(length, k, p, depth, seed):
    determined = source("dyck_shuffle", length=length, k=k, p=p, depth=depth).determined
    for tokens, mask in rows("dyck_shuffle", seed, count=3, length=length, k=k, p=p, depth=depth):
        still_open, height, kinds, without_choice = Counter(), 0, 0, []
        for token in tokens:
            kind, change = token % k, 1 if token < k else -1
            without_choice.append(change < 0 and kinds == 1 and still_open[kind] > 0)
            kinds -= still_open[kind] > 0
            still_open[kind] += change
            kinds += still_open[kind] > 0
            height += change
            assert still_open[kind] >= 0 and height <= depth
        assert not height and mask == [False] + [True] * (length - 1)
        assert determined(torch.tensor(tokens)).tolist() == without_choice


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 255), st.integers(3, 64), st.integers(2, 32), seeds)
def test_automaton_follows_its_rule(rule, width, states, seed):
    table = {f"{pattern:03b}": rule >> pattern & 1 for pattern in range(8)}
    for tokens, mask in rows("eca", seed, length=width * states, width=width, rule=rule):
        assert mask == [t >= width for t in range(width * states)]
        grid = [tokens[start : start + width] for start in range(0, len(tokens), width)]
        for state, following in pairwise(grid):
            ring = [state[-1], *state, state[0]]
            assert following == [table["".join(map(str, ring[i : i + 3]))] for i in range(width)]


def dyck_law(length, k, p, depth, crossing):
    """The probability of every word, by the rule, one token at a time."""
    law, words = {}, [((), (), 1.0)]
    while words:
        word, still_open, chance = words.pop()
        left = length - len(word)
        if not left:
            law[word] = chance
            continue
        opening = 1.0 if not still_open else 0.0 if len(still_open) >= min(depth, left) else p
        if opening:
            words += [((*word, kind), (*still_open, kind), chance * opening / k) for kind in range(k)]
        if opening < 1:
            kinds = sorted(set(still_open)) if crossing else still_open[-1:]
            for kind in kinds:
                last = len(still_open) - 1 - still_open[::-1].index(kind)
                rest = still_open[:last] + still_open[last + 1 :]
                words.append(((*word, kind + k), rest, chance * (1 - opening) / len(kinds)))
    return law


def stack_law(length, vocab, forced=2):
    """The same for the operations of a stack."""
    law, words = {}, [((), (), 1.0)]
    while words:
        word, stack, chance = words.pop()
        t = len(word)
        if t == length:
            law[word] = chance
            continue
        pushing = 1.0 if len(stack) <= forced else 0.75 if t < int(2 * length / 3) else 0.25
        if t == length - 1:
            pushing = float(len(stack) <= 1)
        free = [token for token in range(1, vocab) if token not in stack]
        if pushing:
            words += [((*word, token), (*stack, token), chance * pushing / len(free)) for token in free]
        if pushing < 1:
            words.append(((*word, 0), stack[:-1], chance * (1 - pushing)))
    return law


def delete_law():
    """Two tokens out of 1 and 2, the separator 3, and the token at a random place."""
    return {(*x, 3, target): x.count(target) / 8 for x in product((1, 2), repeat=2) for target in set(x)}


def absent_law():
    """Two tokens out of 1, 2 and 3, the separator 4, and any of the three."""
    return {(*x, 4, target): 1 / 27 for *x, target in product((1, 2, 3), repeat=3)}


LAWS = {
    "identity": ({"length": 3, "vocab": 5}, 3, lambda: dict.fromkeys(product(range(1, 5), repeat=3), 1 / 64)),
    "delete": ({"length": 2, "vocab": 3}, 4, delete_law),
    "delete, what may be absent": ({"length": 2, "vocab": 4, "absent": 1}, 4, absent_law),
    "dyck": ({"length": 8, "k": 2, "p": 0.4}, 8, lambda: dyck_law(8, 2, 0.4, 8, crossing=False)),
    "dyck, shallow": ({"length": 8, "k": 2, "p": 0.7, "depth": 2}, 8, lambda: dyck_law(8, 2, 0.7, 2, crossing=False)),
    "dyck_shuffle": ({"length": 8, "k": 2, "p": 0.6, "depth": 3}, 8, lambda: dyck_law(8, 2, 0.6, 3, crossing=True)),
    "stack": ({"length": 6, "vocab": 6}, 6, lambda: stack_law(6, 6)),
    "stack, smallest alphabet": ({"length": 5, "vocab": 5}, 5, lambda: stack_law(5, 5)),
    "stack, a push forced at one": ({"length": 6, "vocab": 6, "forced": 1}, 6, lambda: stack_law(6, 6, 1)),
    "eca": ({"length": 8, "width": 4}, 4, lambda: dict.fromkeys(product(range(2), repeat=4), 1 / 16)),
}


@pytest.mark.parametrize("case", LAWS)
def test_distribution_is_exactly_the_rules(case):
    """Chi-square over every possible beginning of a sequence, within five standard deviations."""
    chosen, beginning, law = LAWS[case]
    law = law()
    assert abs(sum(law.values()) - 1) < 1e-9
    count = 60_000
    tokens, _ = source(case.split(",")[0], **chosen).draw(count, generator("cpu", 1, case))
    seen = Counter(map(tuple, tokens[:, :beginning].tolist()))
    assert set(seen) <= set(law)
    likely = {word: count * chance for word, chance in law.items() if count * chance >= 5}
    statistic = sum((seen[word] - expected) ** 2 / expected for word, expected in likely.items())
    freedom = len(likely) - 1
    assert abs(statistic - freedom) < 5 * sqrt(2 * freedom)


def test_a_dyck_word_opens_with_probability_p():
    tokens, _ = source("dyck", length=512).draw(500, generator("cpu", 0))
    height = (1 - 2 * (tokens >= 64).long()).cumsum(1)[:, :-1]
    free = (height > 0) & (height < 512 - torch.arange(1, 512))
    opens = (tokens[:, 1:] < 64)[free].double().mean()
    assert abs(opens - 0.49) < 5 * sqrt(0.25 / free.sum())


@pytest.mark.parametrize("name", PROCEDURAL)
def test_same_seed_same_sequences(name):
    drawn_from = source(name, **({"length": 32} if "length" in PROCEDURAL[name].defaults else {}))
    first, again, other = (drawn_from.draw(8, generator("cpu", seed)).tokens for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PROCEDURAL)
def test_draws_on_the_generators_device(name):
    batch = source(name).draw(8, generator("cuda", 0))
    assert batch.tokens.is_cuda and batch.loss_mask.is_cuda
