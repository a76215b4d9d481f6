"""Hours: an update of a model, timed on this machine."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from structure_first.data.batch import Source
from structure_first.training.compute import Compute
from structure_first.training.devices import keep_freed_memory, settle
from structure_first.training.loop import Run
from structure_first.training.protocol import Model, device_of
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

SPENT = 0.3  # seconds of updates that are timed


def timed_update(model: Model, source: Source, stage: Stage, compute: Compute = Compute()) -> Callable[[], None]:
    """An update of the model on one batch, drawn beforehand."""
    keep_freed_memory()
    run = Run(model, source, stage, "timed", compute)
    stream = Stream(source, stage.batch, model.seeds, "timed", device_of(model))
    stream.block = 1
    batch = stream(0)
    return lambda: run.update(batch, source)


def seconds_of(update: Callable[[], None]) -> float:
    """The median of the updates that fit into `SPENT` seconds, one of them at least, after two to warm up."""
    seconds: list[float] = []
    while sum(seconds[2:]) < SPENT or len(seconds) < 3:
        settle()
        began = perf_counter()
        update()
        settle()
        seconds.append(perf_counter() - began)
    return median(seconds[2:])
