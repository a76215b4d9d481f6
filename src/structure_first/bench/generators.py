"""Each generator against a program that draws one sequence at a time in plain Python, as most code does.

The plain one makes tensors of its sequences at the end, since that is what trains. Many sequences at once spread the
cost of a call; a trainer asks for few, so the languages, which go token by token, are timed as it draws them, too.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from statistics import median

import torch

from structure_first.bench.harness import Ratios, Sizes, by_steps, met, table
from structure_first.data.batch import Batch, Source
from structure_first.data.registry import PROCEDURAL, source
from structure_first.seeding import generator
from structure_first.training.devices import keep_freed_memory, one_thread
from structure_first.training.stream import Stream

HEAVY = ("dyck", "dyck_shuffle", "stack", "eca")
FILTERED = {"nca": 1}  # a network for each sequence, and of two rules one is thrown away
TARGET_TOKENS = {name: 20 if name in HEAVY else FILTERED.get(name, 40) for name in PROCEDURAL}  # millions a second
TARGET_RATIOS = {"dyck": 10, "dyck_shuffle": 5}  # to plain Python, as the trainer draws
BATCH = 32  # sequences of a step


@one_thread()
def report(sizes: Sizes, ratios: Ratios) -> None:
    keep_freed_memory()
    head = ("source", "length", "M tokens/s", "target", "met", "against plain Python")
    table(f"Generators, {sizes.sequences:,} sequences at once, one thread", head, list(generators(sizes, ratios)))
    heads = ("source", "length", "ours", "plain Python", "target", "met", "ratio, median (range)")
    title = f"M tokens/s as the trainer draws them, {BATCH} sequences a step, one thread"
    table(title, heads, list(for_training(sizes, ratios)))


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


def plain_dyck_shuffle(of: Source, random: Random) -> tuple[list[int], list[int]]:
    k, length, depth = (int(of.settings[name]) for name in ("k", "length", "depth"))
    p, height, word = of.settings["p"], 0, []
    still_open: dict[int, int] = {}
    for left in range(length, 0, -1):
        if not height or (height < min(depth, left) and random.random() < p):
            kind = int(k * random.random())
            still_open[kind] = still_open.get(kind, 0) + 1
            height += 1
            word.append(kind)
        else:
            kind = list(still_open)[int(len(still_open) * random.random())]
            still_open[kind] -= 1
            if not still_open[kind]:
                del still_open[kind]
            height -= 1
            word.append(kind + k)
    return word, [0] + [1] * (length - 1)


PLAIN = {"identity": plain_identity, "set": plain_set, "dyck": plain_dyck, "dyck_shuffle": plain_dyck_shuffle}


def rate(draw: Callable[[], int], turns: int) -> float:
    """Millions of tokens a second: the median of `turns`, after one to warm up."""
    tokens, timed = draw(), by_steps(draw)
    return tokens / median(timed(1) for _ in range(turns)) / 1e6


def count(of: Source, sequences: int, random: torch.Generator) -> int:
    """How many tokens a batch has, once it is drawn."""
    return of.draw(sequences, random).tokens.numel()


def drawn_plainly(of: Source, sequences: int, random: Random) -> int:
    tokens, loss_mask = zip(*(PLAIN[of.name](of, random) for _ in range(sequences)), strict=True)
    return Batch(torch.tensor(tokens), torch.tensor(loss_mask, dtype=torch.bool)).tokens.numel()


def generators(sizes: Sizes, ratios: Ratios) -> Iterator[tuple[str, ...]]:
    """A line of the table for each procedural source."""
    for name, target in TARGET_TOKENS.items():
        of, random = source(name), generator("cpu", 0)
        ours, against = rate(partial(count, of, sizes.sequences, random), sizes.turns), ""
        if name in PLAIN:
            theirs = rate(partial(drawn_plainly, of, sizes.plain, Random(0)), sizes.turns)
            ratios[f"generator, {name}"] = ours / theirs
            against = f"{ours / theirs:.0f} x"
        yield name, f"{of.length}", f"{ours:.1f}", f"{target}", met(ours, target), against


def for_training(sizes: Sizes, ratios: Ratios) -> Iterator[tuple[str, ...]]:
    """A line for each language, in turns with the plain program."""

    def block(stream: Stream, steps: Iterator[int]) -> int:
        """How many tokens are in the steps that the stream draws together, once all are handed out."""
        return sum(stream(next(steps)).tokens.numel() for _ in range(stream.block))

    for name, target in TARGET_RATIOS.items():
        of = source(name)
        ours = partial(block, Stream(of, BATCH, [0], "bench"), itertools.count())
        theirs = partial(drawn_plainly, of, sizes.plain, Random(0))
        turns = [(rate(ours, 1), rate(theirs, 1)) for _ in range(sizes.turns)]
        mine, plain = map(list, zip(*turns, strict=True))
        yield name, f"{of.length}", *ratios.judged(f"drawn for training, {name}", mine, plain, target)
