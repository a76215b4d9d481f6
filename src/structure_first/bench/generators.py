"""Each generator against a program that draws one sequence at a time in plain Python, as most code does.

The plain one makes tensors of its sequences at the end, since that is what trains.
"""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from statistics import median
from time import perf_counter

import torch

from structure_first.bench.sides import Kept, Sizes, met, table
from structure_first.data.batch import Batch, Source
from structure_first.data.registry import PROCEDURAL, source
from structure_first.seeding import generator
from structure_first.training.devices import keep_freed_memory

HEAVY = ("dyck", "dyck_shuffle", "stack", "eca")
FILTERED = {"nca": 1}  # a network for each sequence, and of two rules one is thrown away
TARGET_TOKENS = {name: 20 if name in HEAVY else FILTERED.get(name, 40) for name in PROCEDURAL}  # millions a second


def report(sizes: Sizes, kept: Kept) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    head = ("source", "length", "M tokens/s", "target", "met", "against plain Python")
    table(f"Generators, {sizes.sequences:,} sequences at once, one thread", head, list(generators(sizes, kept)))
    torch.set_num_threads(before)


def plain_identity(of: Source, random: Random) -> tuple[list[int], list[int]]:
    vocab, length = int(of.settings["vocab"]), int(of.settings["length"])
    x = [1 + int((vocab - 1) * random.random()) for _ in range(length)]
    return [*x, vocab, *x], [0] * (length + 1) + [1] * length


def plain_set(of: Source, random: Random) -> tuple[list[int], list[int]]:
    vocab, length = int(of.settings["vocab"]), int(of.settings["length"])
    x = [1 + int((vocab - 1) * random.random()) for _ in range(length)]
    distinct = list(dict.fromkeys(x))
    pads = length - len(distinct)
    return [*x, vocab, *distinct, *[vocab + 1] * pads], [0] * (length + 1) + [1] * len(distinct) + [0] * pads


def plain_dyck(of: Source, random: Random) -> tuple[list[int], list[int]]:
    k, p, length = int(of.settings["k"]), of.settings["p"], int(of.settings["length"])
    word: list[int] = []
    still_open: list[int] = []
    for left in range(length, 0, -1):
        if not still_open or (len(still_open) < left and random.random() < p):
            still_open.append(int(k * random.random()))
            word.append(still_open[-1])
        else:
            word.append(still_open.pop() + k)
    return word, [0] + [1] * (length - 1)


PLAIN = {"identity": plain_identity, "set": plain_set, "dyck": plain_dyck}


def rate(draw: Callable[[], int], turns: int) -> float:
    """Millions of tokens a second: the median of `turns`, after one to warm up."""
    seconds, tokens = [], draw()
    for _ in range(turns):
        began = perf_counter()
        tokens = draw()
        seconds.append(perf_counter() - began)
    return tokens / median(seconds) / 1e6


def count(of: Source, sequences: int, random: torch.Generator) -> int:
    """How many tokens a batch has, once it is drawn."""
    return of.draw(sequences, random).tokens.numel()


def generators(sizes: Sizes, kept: Kept) -> Iterator[tuple[str, ...]]:
    """A line of the table for each procedural source."""

    def drawn_plainly(of: Source, plain: Callable, random: Random) -> int:
        tokens, loss_mask = zip(*(plain(of, random) for _ in range(sizes.plain)), strict=True)
        return Batch(torch.tensor(tokens), torch.tensor(loss_mask, dtype=torch.bool)).tokens.numel()

    for name, target in TARGET_TOKENS.items():
        of, random = source(name), generator("cpu", 0)
        ours, against = rate(partial(count, of, sizes.sequences, random), sizes.turns), ""
        if plain := PLAIN.get(name):
            theirs = rate(partial(drawn_plainly, of, plain, Random(0)), sizes.turns)
            kept[f"generator, {name}"] = ours / theirs
            against = f"{ours / theirs:.0f} x"
        yield name, f"{of.length}", f"{ours:.1f}", f"{target}", met(ours, target), against
