"""The verb that says what this machine is to the book: versions against the pins, memory, disk, hours."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from structure_first.verbs.common import RESULTS, app

PINS = Path(__file__).parents[3] / "constraints.txt"  # of a checkout
ROWS, BUILT = 2, 1  # GB that the corpora and rows, and the pages, take at most at scale laptop


@app.command()
def doctor(time: Annotated[bool, typer.Option(help="time an update of each chapter's live programs")] = True) -> None:
    """Say what this machine is: versions against the pins, device, memory, disk, and what each chapter would take.

    Exit status 1 if something is amiss.
    """
    wrong = list(amiss())
    for line in machine():
        typer.echo(line)
    for line in wrong:
        typer.echo(f"amiss: {line}")
    if time:
        for line in chapters():
            typer.echo(line)
    if wrong:
        raise typer.Exit(1)
    typer.echo("nothing is amiss")


def machine() -> Iterator[str]:
    """What there is."""
    import torch

    from structure_first.cost.memory import free_memory
    from structure_first.machine import cores
    from structure_first.training.devices import device

    where = device()
    name = torch.cuda.get_device_name() if where.type == "cuda" else platform.machine()
    yield f"python {platform.python_version()}, torch {torch.__version__}, {cores()} cores, {where.type} ({name})"
    free = shutil.disk_usage(Path.cwd()).free
    yield f"free: {free_memory(where) / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB of disk here"


def amiss() -> Iterator[str]:
    """What may keep the book from being what it is elsewhere, and what to do about it."""
    for name, pinned in pins():
        try:
            here = version(name)
        except PackageNotFoundError:
            continue  # of an extra, or of another platform
        if here.partition("+")[0] != pinned:
            yield f"{name} is {here}, pinned is {pinned}; pip install {name}=={pinned}"
    if (free := shutil.disk_usage(Path.cwd()).free / 1e9) < ROWS + BUILT:
        yield f"{free:.1f} GB of disk are free here; a book at scale laptop wants {ROWS + BUILT}"


def pins() -> Iterator[tuple[str, str]]:
    """Each pinned package and its version; none outside of a checkout."""
    for line in PINS.read_text().splitlines() if PINS.exists() else ():
        name, equals, pinned = line.partition("#")[0].strip().partition("==")
        if equals:
            yield name, pinned


def chapters() -> Iterator[str]:
    """How long the live training of each experiment would take here, at the scales whose data are here."""
    from structure_first.evidence.store import Store
    from structure_first.experiments.registry import EXPERIMENTS
    from structure_first.runs.planning import chosen, costs, plan
    from structure_first.runs.runner import worker_count
    from structure_first.scales import SCALES

    workers = worker_count()
    yield f"what the chapters train live would take at most, with {workers} processes:"
    for experiment in EXPERIMENTS.values():
        estimates = []
        for scale in SCALES[:2] if experiment.live else ():
            live, store = chosen(experiment, scale, experiment.live), Store(RESULTS / experiment.name)
            if not (jobs := plan(live, scale, experiment.live_seeds, store, "auto", workers).jobs):
                continue  # all of it is stored
            table = costs(jobs, workers)
            hours = table["hours"].where(table["stage"] == 1, experiment.live_part * table["hours"])
            estimates.append(f"{60 * hours.sum(skipna=False):.1f} minutes at {scale}")
        if estimates:
            yield f"  {experiment.name:14} {', '.join(estimates)}"
    yield "what stored rows would take, at any scale: structure-first run EXPERIMENT --scale SCALE --plan"
