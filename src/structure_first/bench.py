"""`make bench`: how fast this machine is, as ratios from one run, beside the targets.

What is compared, and why it is fair:

- Each generator against a program that draws one sequence at a time in plain Python, as most code does, and makes
  tensors of them at the end, since that is what trains.
- A step of our loop against the same GPT-2 from `transformers` in the plain loop that its documentation shows. Both
  take the same batches from the same stream, clip, and step AdamW, in float32 and with as many threads; the peer keeps
  no cache, and its labels are -100 wherever no loss is wanted. Each runs in a process of its own, as its user would run
  it: ours keeps freed memory, as our training does, and the peer's is as PyTorch leaves it. They take turns of a share
  of a second, so that whatever else the machine does falls on both; a ratio is the median over turns.
- Ten seeds along the replica axis against one seed in the same loop, in models times steps a second.
"""

import argparse
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, sleep

import torch

from structure_first.data.batch import Batch, Source
from structure_first.data.registry import PROCEDURAL, source
from structure_first.errors import UserError
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import hf_config
from structure_first.seeding import generator
from structure_first.training.devices import keep_freed_memory
from structure_first.training.loop import Run
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

HEAVY = ("dyck", "dyck_shuffle", "stack", "eca")
TARGET_TOKENS = {name: 20 if name in HEAVY else 40 for name in PROCEDURAL}  # millions a second
TARGET_STEP, TARGET_REPLICAS = 3.0, 1.5


@dataclass(frozen=True)
class Sizes:
    """How much is timed; the defaults are what the targets are stated for."""

    sequences: int = 4096  # in a generator's batch
    plain: int = 50  # sequences of the plain-Python peers
    batch: int = 256
    pairs: tuple[int, ...] = (12, 30)
    replicas: int = 10
    turns: int = 7
    seconds: float = 0.6  # a turn


QUICK = Sizes(sequences=16, plain=2, batch=8, pairs=(3,), replicas=2, turns=2, seconds=0.02)


# Generators


def plain_identity(of: Source, random: Random) -> tuple[list[int], list[int]]:
    vocab, length = of.settings["vocab"], of.settings["length"]
    x = [1 + int((vocab - 1) * random.random()) for _ in range(length)]
    return [*x, vocab, *x], [0] * (length + 1) + [1] * length


def plain_set(of: Source, random: Random) -> tuple[list[int], list[int]]:
    vocab, length = of.settings["vocab"], of.settings["length"]
    x = [1 + int((vocab - 1) * random.random()) for _ in range(length)]
    distinct = list(dict.fromkeys(x))
    pads = length - len(distinct)
    return [*x, vocab, *distinct, *[vocab + 1] * pads], [0] * (length + 1) + [1] * len(distinct) + [0] * pads


def plain_dyck(of: Source, random: Random) -> tuple[list[int], list[int]]:
    k, p, length = of.settings["k"], of.settings["p"], of.settings["length"]
    word, still_open = [], []
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


def generators(sizes: Sizes) -> Iterator[tuple[str, ...]]:
    """A line of the table for each procedural source."""

    def drawn_plainly(of: Source, plain: Callable, random: Random) -> int:
        tokens, loss_mask = zip(*(plain(of, random) for _ in range(sizes.plain)), strict=True)
        return Batch(torch.tensor(tokens), torch.tensor(loss_mask, dtype=torch.bool)).tokens.numel()

    for name, target in TARGET_TOKENS.items():
        of, random = source(name), generator("cpu", 0)
        ours, against = rate(partial(count, of, sizes.sequences, random), sizes.turns), ""
        if plain := PLAIN.get(name):
            theirs = rate(partial(drawn_plainly, of, plain, Random(0)), sizes.turns)
            against = f"{ours / theirs:.0f} x"
        yield name, f"{of.length}", f"{ours:.1f}", f"{target}", met(ours, target), against


# Steps


def our_step(pairs: int, batch: int, replicas: int) -> Callable[[], None]:
    """A step of the package's loop."""
    keep_freed_memory()
    of = source("haystack", pairs=pairs)
    model = Transformer(Shape(of.vocab, of.length - 1), range(replicas))
    run = Run(model, of, Stage(steps=10**6, batch=batch), "bench")
    stream = Stream(of, batch, model.seeds, "bench")
    return lambda: run.update(stream(run.step), of)


def peers_step(pairs: int, batch: int, replicas: int = 1) -> Callable[[], None]:
    """A step of a plain PyTorch loop around the same model from transformers."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        raise UserError("the bench compares with transformers, which is not installed; use make bench") from None
    logging.set_verbosity_error()
    of = source("haystack", pairs=pairs)
    model = GPT2LMHeadModel(GPT2Config(**hf_config(Shape(of.vocab, of.length)))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    batches = map(Stream(of, batch, [0], "bench"), range(10**6))

    def step() -> None:
        tokens, loss_mask = (tensor[0] for tensor in next(batches))
        optimizer.zero_grad()
        labels = tokens.masked_fill(~loss_mask, -100)
        model(input_ids=tokens, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def serve(pipe: Connection, make: Callable[[int], Callable[[], None]], batch: int, replicas: int) -> None:
    """Answer each (pairs, threads, steps) with the seconds that so many steps took."""
    step = cache(lambda pairs: make(pairs, batch, replicas))
    try:
        while True:
            pairs, threads, count = pipe.recv()
            torch.set_num_threads(threads)
            take = step(pairs)
            began = perf_counter()
            for _ in range(count):
                take()
            pipe.send(perf_counter() - began)
    except UserError as error:
        pipe.send(error)
    except EOFError:  # the bench has ended
        return


class Runner:
    """One side of a comparison, in a process of its own."""

    def __init__(self, make: Callable[..., Callable[[], None]], batch: int, replicas: int = 1):
        context = multiprocessing.get_context("spawn")
        self.replicas = replicas
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, make, batch, replicas), daemon=True)
        self.process.start()
        other.close()

    def seconds(self, pairs: int, threads: int, steps: int) -> float:
        self.pipe.send((pairs, threads, steps))
        answer = self.pipe.recv()
        if isinstance(answer, UserError):
            raise answer
        return answer

    def calibrate(self, pairs: int, threads: int, seconds: float) -> None:
        """Warm up, and find how many steps fill a turn."""
        self.seconds(pairs, threads, 3)
        self.steps = max(2, round(seconds * 5 / self.seconds(pairs, threads, 5)))

    def rate(self, pairs: int, threads: int) -> float:
        """Models times steps a second, in one turn."""
        return self.replicas * self.steps / self.seconds(pairs, threads, self.steps)


@contextmanager
def runners(sizes: Sizes) -> Iterator[list[Runner]]:
    """Ours, the peer, and ours with many replicas."""
    found = [
        Runner(our_step, sizes.batch),
        Runner(peers_step, sizes.batch),
        Runner(our_step, sizes.batch, sizes.replicas),
    ]
    try:
        yield found
    finally:
        for runner in found:
            runner.process.terminate()
            runner.process.join()


def compare(sides: list[Runner], pairs: int, threads: int, sizes: Sizes) -> list[list[float]]:
    """The rates of every side in every turn."""
    for side in sides:
        side.calibrate(pairs, threads, sizes.seconds)
    rates: list[list[float]] = [[] for _ in sides]
    for _ in range(sizes.turns):
        for side, found in zip(sides, rates, strict=True):
            sleep(min(0.2, sizes.seconds))  # the threads of the side before stop spinning
            found.append(side.rate(pairs, threads))
    return rates


def judged(ours: list[float], theirs: list[float], target: float) -> tuple[str, ...]:
    """Both rates, the target, whether the median ratio meets it, and that ratio with its range over the turns."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = median(ratios)
    span = f"{middle:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{median(ours):.1f}", f"{median(theirs):.1f}", f"{target}", met(middle, target), span


# Report


def met(value: float, target: float) -> str:
    return "yes" if value >= target else "no"


def table(title: str, head: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    print(f"\n{title}")
    for line in [head, *lines]:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  " + "   ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip(), flush=True)


def machine() -> str:
    """What was measured on, and how busy it was."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {cores()} cores, torch {torch.__version__}{load}"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="structure_first.bench", description="Print this machine's speed, as ratios.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that it runs")
    sizes = QUICK if parser.parse_args(arguments).quick else Sizes()
    print(machine())
    if sizes is QUICK:
        print("sizes are far below those that the targets are stated for: this shows only that the bench runs")

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    head = ("source", "length", "M tokens/s", "target", "met", "against plain Python")
    table(f"Generators, {sizes.sequences:,} sequences at once, one thread", head, list(generators(sizes)))
    torch.set_num_threads(before)

    steps, replicas = [], []
    with runners(sizes) as sides:
        for threads in sorted({1, cores()}):
            for pairs in sizes.pairs:
                one, peer, many = compare(sides, pairs, threads, sizes)
                case = (f"{pairs} pairs", f"{threads}")
                steps.append(case + judged(one, peer, TARGET_STEP))
                replicas.append(case + judged(many, one, TARGET_REPLICAS))
    head = ("haystack", "threads", "ours", "transformers", "target", "met", "ratio, median (range)")
    table(f"Optimizer steps a second, batch {sizes.batch}, float32", head, steps)
    head = ("haystack", "threads", f"{sizes.replicas} at once", "one", "target", "met", "ratio, median (range)")
    table("Models times steps a second, seeds along the replica axis", head, replicas)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"structure_first.bench: {error}", file=sys.stderr)
        sys.exit(2)
