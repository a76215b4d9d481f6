"""Bracket words, token for token as they were when results were first stored; `languages.json` was made then."""

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest

from structure_first.data.registry import source
from structure_first.seeding import generator

DIGESTS = json.loads(Path(__file__).with_name("languages.json").read_text())
TYPES = (1, 8, 64, 20_000)
SETTINGS = [  # p, depth and k; each two of their values meet
    (p, depth, TYPES[(row + column) % 4])
    for (row, p), (column, depth) in product(enumerate((0.1, 0.3, 0.49, 0.5, 0.9)), enumerate((None, 1, 2, 16)))
]


def digest(name: str, count: int, length: int) -> str:
    """Of words of all settings, drawn one after the other from one generator, and of its state in the end."""
    random, found = generator("cpu", 7, name, count, length), hashlib.sha256()
    for p, depth, k in SETTINGS if count * length < 1 << 20 else SETTINGS[8:12]:
        tokens = source(name, length=length, p=p, depth=depth, k=k).draw(count, random).tokens
        found.update(tokens.numpy().tobytes())
    found.update(random.get_state().numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("case", DIGESTS)
def test_words_are_those_that_results_were_stored_with(case):
    name, count, length = case.split()
    assert digest(name, int(count), int(length)) == DIGESTS[case]
