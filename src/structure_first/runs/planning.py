"""What is missing of an experiment, as programs; and what they will cost before the first of them starts."""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import nan

import pandas as pd

from structure_first.cost.memory import usable_memory
from structure_first.errors import UserError, unknown
from structure_first.evidence.store import Store
from structure_first.runs.budget import bytes_of, cost
from structure_first.runs.jobs import Job, Replica, weights_path
from structure_first.runs.recipe import Cell, Experiment, Recipe
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import one_thread

CACHED = 1 << 20  # a CPU gains from more replicas up to about so many numbers in a stream, and then no more
PARTS = 2  # into so many programs a CPU's replicas are cut at least: two cores are then busy, and rows do not depend on
# how many workers there are


@dataclass(frozen=True)
class Plan:
    """The programs that are missing, stage ones first, and how many had to be split for want of memory."""

    jobs: list[Job]
    split: int = 0


def named(cells: str, known: Iterable[str]) -> list[str]:
    """The cells that a line names with commas between; a name of those `known` may have commas of its own."""
    names, parts = [], cells.split(",")
    while parts:
        ways = {count: ",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)}
        count = next((each for each, name in ways.items() if fnmatch.filter(known, name)), 1)
        names.append(ways[count])
        del parts[:count]
    return names


def chosen(experiment: Experiment, scale: str, cells: Sequence[str] | None) -> Experiment:
    """The experiment with these cells alone, where a `*` stands for anything; raises `UserError` on a name that it does
    not have, and on a scale at which it has none.
    """
    known = experiment.cells(scale)
    if not known:
        others = ", ".join(each for each in experiment.seeds if experiment.cells(each))
        raise UserError(f"{experiment.name} has no cells at scale {scale}; scales at which it has some: {others}")
    if cells is None:
        return experiment
    selected: dict[str, Cell | Recipe] = {}
    for cell in cells:
        fitting = fnmatch.filter(known, cell)
        if not fitting:
            raise unknown("cell", cell, known)
        selected |= {name: known[name] for name in fitting}
    return replace(experiment, cells=lambda scale: selected)


def replicas(experiment: Experiment, scale: str, seeds: Sequence[int]) -> list[Replica]:
    """Every model of the experiment, cell by cell."""
    return [Replica(cell, recipe, seed) for cell, recipe in experiment.recipes(scale).items() for seed in seeds]


def behind(models: Iterable[Replica]) -> list[Replica]:
    """All that these models start from, directly or not; what must end first comes first."""
    direct = {one.key: one for model in models for one in model.needs}
    before = [*behind(direct.values()), *direct.values()] if direct else []
    return list({one.key: one for one in before}.values())


def current(experiment: Experiment, scale: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the rows that today's cells of the experiment make at that scale, or a stage one of theirs."""
    models = replicas(experiment, scale, [0])
    known = pd.MultiIndex.from_tuples({(scale, each.cell, each.configuration) for each in (*behind(models), *models)})
    return rows[rows.set_index(["scale", "cell", "configuration"]).index.isin(known)].reset_index(drop=True)


def first_part(experiment: Experiment, scale: str, rows: pd.DataFrame, part: float) -> pd.DataFrame:
    """The rows of the first `part` of every stage two, and those of stage one."""
    last = {cell: recipe.last.stage.first(part) for cell, recipe in experiment.recipes(scale).items()}
    return rows[(rows["stage"] == 1) | (rows["step"] <= rows["cell"].map(last))].reset_index(drop=True)


@one_thread()  # for models that are counted; they are small
def plan(
    experiment: Experiment,
    scale: str,
    seeds: Sequence[int],
    store: Store,
    device: str = "auto",
    workers: int = 1,
    beside: int | None = None,
) -> Plan:
    """What is missing, for so many workers, `beside` of them (all, if left out) on this machine.

    Where a program ends and the next begins does not depend on what is already there, so that a run that goes on finds
    its checkpoints; nor, on a CPU with memory enough, on the workers, so that rows do not.
    """
    rows = store.rows()
    rows = rows[rows["scale"] == scale]
    done = set(rows[["cell", "configuration", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    stage_two = replicas(experiment, scale, seeds)
    before = behind(stage_two)
    missing = {each.key for each in stage_two if each.key not in done}
    needed = {one.key for each in stage_two if each.key in missing for one in each.needs}
    for one in reversed(before):  # each after all that start from it
        if one.key in needed and (one.key not in done or not weights_path(one, store.folder).exists()):
            missing.add(one.key)
            needed |= {other.key for other in one.needs}
    jobs, split = [], 0
    for group in (*_programs(before), *_programs(stage_two)):
        whole = Job(tuple(group), store.folder, device)
        wanted, fits = _sizes(whole, workers, beside or workers)
        for start in range(0, len(group), fits):
            if lacking := tuple(each for each in group[start : start + fits] if each.key in missing):
                jobs.append(replace(whole, replicas=lacking))
                split += fits < wanted
    return Plan(jobs, split)


def _programs(models: Iterable[Replica]) -> list[list[Replica]]:
    groups: dict[str, list[Replica]] = {}
    for replica in models:
        groups.setdefault(replica.program, []).append(replica)
    return list(groups.values())


def _sizes(job: Job, workers: int, beside: int) -> tuple[int, int]:
    """How many of the job's replicas should train as one program, and how many the free memory allows: the former, or
    its half, or the half of that ...
    """
    device = pick_device(job.device)
    if device.type == "cuda":
        wanted = -(-len(job.replicas) // workers)  # as many processes finish together
    else:
        cached = CACHED // (job.phase.stage.batch * job.source.length * job.shape.width)
        wanted = max(1, min(-(-len(job.replicas) // PARTS), cached))
    if job.phase.dropout:
        wanted = 1  # what is dropped follows from all the seeds of a program
    fits, most = wanted, int(usable_memory(device) / beside) // bytes_of(job)
    while fits > max(1, most):
        fits = -(-fits // 2)
    return wanted, fits


@one_thread()
def costs(jobs: Sequence[Job], workers: int) -> pd.DataFrame:
    """A line for each kind of program: models, updates, FLOPs, bytes a replica, and at most how many hours.

    One program of each kind is timed for some updates. Seeds that master their source early make it less.
    """
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.replicas[0].program, []).append(job)
    lines = []
    for same_program in kinds.values():
        job, each = same_program[0], cost(same_program[0])
        models = sum(len(job.replicas) for job in same_program)
        line = {
            "stage": job.stage,
            "source": job.phase.label,
            "models": models,
            "programs": len(same_program),
            "cells": len({replica.cell for job in same_program for replica in job.replicas}),
            "updates": job.phase.stage.steps,
            "PFLOPs": models * each.flops / 1e15,
            "MB a model": each.bytes / len(job.replicas) / 1e6,
            "hours": nan if each.hours is None else each.hours * models / len(job.replicas) / workers,
        }
        lines.append(line)
    return pd.DataFrame(lines)
