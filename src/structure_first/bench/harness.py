"""The contenders of a comparison, each in a process of its own and taking turns; and the tables that say who won."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from textwrap import indent
from time import perf_counter, sleep
from types import ModuleType
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

from structure_first.data.batch import Source
from structure_first.errors import UserError
from structure_first.machine import cores
from structure_first.model.transformer import Transformer
from structure_first.training.devices import keep_freed_memory, settle
from structure_first.training.loop import Run
from structure_first.training.protocol import device_of
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TimedSteps = Callable[[int], float]  # makes so many steps, and says how many seconds they took


class Text(NamedTuple):
    """A model of text, and what an update of it reads."""

    layers: int
    heads: int
    width: int
    context: int
    vocab: int
    batch: int
    dropout: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """How much is timed; the defaults are what the targets are stated for."""

    sequences: int = 4096  # in a generator's batch
    plain: int = 50  # sequences of the plain-Python peers
    batch: int = 256
    pairs: tuple[int, ...] = (12, 30)
    replicas: int = 10
    scale: str = "laptop"  # of the grid's cell
    models: int = 40  # of the grid's cell at once
    models_on_cuda: int = 128
    texts: tuple[Text, ...] = (
        Text(2, 4, 64, 128, 256, 32),  # of chapter 5's smaller model
        Text(4, 4, 128, 256, 256, 16, dropout=0.1),  # of the published recipe, at laptop
        Text(12, 12, 768, 1024, 50257, 1),
    )
    texts_on_cuda: tuple[Text, ...] = (Text(12, 12, 768, 1024, 50257, 16),)
    warm: tuple[int, int] = (64, 60)  # sequences of an update, updates of a warm-up
    turns: int = 7
    seconds: float = 0.6  # a turn


QUICK = Sizes(
    sequences=16,
    plain=2,
    batch=8,
    pairs=(3,),
    replicas=2,
    scale="smoke",
    models=4,
    models_on_cuda=4,
    texts=(Text(1, 2, 32, 16, 64, 2, dropout=0.1),),
    texts_on_cuda=(Text(1, 2, 32, 16, 64, 2),),
    warm=(4, 3),
    turns=2,
    seconds=0.02,
)


def by_steps(step: Callable[[], object]) -> TimedSteps:
    """Steps that can be made one at a time."""

    def take(count: int) -> float:
        settle()
        began = perf_counter()
        for _ in range(count):
            step()
        settle()
        return perf_counter() - began

    return take


def updates(model: Transformer, of: Source, stage: Stage) -> TimedSteps:
    """Steps of the package's loop."""
    keep_freed_memory()
    run = Run(model, of, stage, "bench")
    stream = Stream(of, stage.batch, model.seeds, "bench", device_of(model))
    return by_steps(lambda: run.update(stream(run.step), of))


# Contenders are forked from one process that has loaded what they use, where a system can: loading takes seconds each.
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
LOADED = ["structure_first.bench.grid", "transformers.models.gpt2.modeling_gpt2", "transformers.trainer"]

made: dict[Any, TimedSteps] = {}  # in a contender's process, by case


def timed(make: Callable[[Any], TimedSteps], case: Any, threads: int, steps: int) -> float:
    """In a contender's process: the seconds that so many steps take."""
    torch.set_num_threads(threads)
    if case not in made:
        made[case] = make(case)
    return made[case](steps)


class Contender:
    """What is compared: `make(case)` in a process of its own, or each of some in its own at the same time."""

    def __init__(self, *makes: Callable[[Any], TimedSteps], replicas: int = 1, threads: int | None = None):
        context = multiprocessing.get_context(START)
        context.set_forkserver_preload(LOADED)
        self.replicas, self.threads = replicas, threads  # `threads` of each process, whatever the comparison says
        self.pools = [(ProcessPoolExecutor(1, context), make) for make in makes]
        for pool, _ in self.pools:
            pool.submit(cores)  # the process starts, beside those of the other contenders

    def seconds(self, case: Any, threads: int, steps: int) -> float:
        turns = [pool.submit(timed, make, case, self.threads or threads, steps) for pool, make in self.pools]
        return max(turn.result() for turn in turns)

    def calibrate(self, case: Any, threads: int, seconds: float) -> None:
        """Warm up, and find how many steps fill a turn."""
        self.seconds(case, threads, 1)
        self.steps = max(1, round(seconds / min(self.seconds(case, threads, 1) for _ in range(3))))

    def rate(self, case: Any, threads: int) -> float:
        """Models times steps a second, in one turn."""
        return self.replicas * self.steps / self.seconds(case, threads, self.steps)


def programs(ours: Callable[..., TimedSteps], models: int, split: bool = True) -> dict[str, Contender]:
    """So many models at once: as one program and, if `split`, one for every core, as the runner trains on a CPU."""
    contenders = {"one program": Contender(partial(ours, replicas=models), replicas=models)}
    if split:
        processes = min(cores(), models)
        makes = [partial(ours, replicas=len(range(models)[number::processes])) for number in range(processes)]
        contenders["a process a core"] = Contender(*makes, replicas=models, threads=1)
    return contenders


def quiet_transformers() -> ModuleType:
    """The peers' library, which says nothing but errors; raises `UserError` where it or `accelerate` is missing."""
    try:
        import accelerate  # noqa: F401
        import transformers
    except ImportError:
        problem = "the bench needs transformers and accelerate, which are not installed"
        raise UserError(f"{problem}; use make bench") from None
    transformers.logging.set_verbosity_error()
    return transformers


def compare(
    contenders: dict[str, Contender], cases: Iterable[tuple[Any, int]], sizes: Sizes
) -> Iterator[dict[str, list[float]]]:
    """Of each case and number of threads: the rates in every turn of every contender that takes no more processes than
    that. Their processes end with the last.
    """
    try:
        for case, threads in cases:
            fitting = {name: one for name, one in contenders.items() if len(one.pools) <= threads}
            for contender in fitting.values():
                contender.calibrate(case, threads, sizes.seconds)
            rates: dict[str, list[float]] = {name: [] for name in fitting}
            for _ in range(sizes.turns):
                for name, contender in fitting.items():
                    sleep(min(0.2, sizes.seconds))  # the threads of the one before stop spinning
                    rates[name].append(contender.rate(case, threads))
            yield rates
    finally:
        for contender in contenders.values():
            for pool, _ in contender.pools:
                pool.shutdown(cancel_futures=True)


class Ratios(dict[str, float]):
    """The median ratio of each comparison, by what it compares."""

    def judged(self, what: str, ours: list[float], theirs: list[float], target: float | None) -> tuple[str, ...]:
        """Both rates, the target, whether the median ratio meets it, and that ratio with its range over the turns."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        self[what] = middle = median(ratios)
        span = f"{middle:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
        verdict = ("-", "-") if target is None else (f"{target}", met(middle, target))
        return f"{median(ours):.1f}", f"{median(theirs):.1f}", *verdict, span


def met(value: float, target: float) -> str:
    return "yes" if value >= target else "no"


def table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    sides = ["left", *["right"] * (len(head) - 1)]
    said = tabulate(lines, head, "plain", disable_numparse=True, colalign=sides)
    print(f"\n{title}\n{indent(said, '  ')}", flush=True)
