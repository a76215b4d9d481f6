"""Runs an experiment: cells x seeds -> rows. What is already there is not run again; a killed run goes on."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from structure_first.errors import UserError
from structure_first.evidence.store import Store, configured
from structure_first.machine import cores
from structure_first.runs.execution import execute_or_split
from structure_first.runs.jobs import Job
from structure_first.runs.planning import chosen, current, first_part, plan
from structure_first.runs.recipe import Experiment
from structure_first.training.devices import device as pick_device

UNGUARDED = 71  # the exit status of a worker that would have begun the experiment once more
GUARD = 'a worker loads the script that began the run; put what the script does under if __name__ == "__main__":'

Outcome = tuple[Job, pd.DataFrame, dict[str, dict]]
GLANCE = 5.0  # seconds after which a pool is asked again whether it has grown


class Pool(NamedTuple):
    """Who trains."""

    submit: Callable[[Job], "Future[list[Outcome]]"]
    room: Callable[[], int]  # for so many jobs at once


def worker_count(device: str = "auto", workers: int | None = None) -> int:
    """How many train side by side: one a core without a GPU, else one."""
    return workers or (1 if pick_device(device).type == "cuda" else cores())


def run(
    experiment: Experiment,
    scale: str,
    seeds: Sequence[int],
    out: Path,
    device: str = "auto",
    workers: int | None = None,
    cells: Sequence[str] | None = None,
    cluster: str | None = None,
    part: float = 1.0,
) -> pd.DataFrame:
    """Run what is missing of `experiment` for `seeds` and return its rows at `scale`, for those seeds and cells.

    `workers` processes share the programs, or those of the Dask cluster at the address `cluster`, which see the folder
    `out` under the same name. Rows are stored under `out/experiment.name` as each program ends. Of every stage two only
    the first `part` is made: its rows are returned and not stored, and the same call without goes on from there. Raises
    `UserError` for cells or a scale that the experiment has not, and for a folder that another run holds.
    """
    if not 0 < part <= 1:
        raise UserError(f"part must be a share above 0 and at most 1, not {part}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that runs its parent's script again
        os._exit(UNGUARDED)
    experiment = chosen(experiment, scale, cells)
    workers = 0 if cluster else worker_count(device, workers)
    store = Store(Path(out, experiment.name).resolve() if cluster else Path(out, experiment.name))
    with ExitStack() as opened:
        if cluster:
            try:
                from structure_first.runs.cluster import opened_at
            except ModuleNotFoundError as error:
                needed = 'pip install -e ".[cluster]" -c constraints.txt'
                raise UserError(f"--cluster needs {error.name}, which is not installed: {needed}") from None

            pool, planned = opened.enter_context(opened_at(cluster, store.folder))
        else:
            pool, planned = HERE, partial(plan, workers=workers)
        opened.enter_context(store.locked())
        missing = planned(experiment, scale, seeds, store, device)
        jobs = [replace(job, part=part) if job.stage == 2 else job for job in missing.jobs]
        if workers > 1 and len(jobs) > 1:  # of a cluster, 0
            pool = opened.enter_context(local(workers))
        with tqdm(
            total=sum(job.steps for job in jobs),
            desc=f"{experiment.name}, {scale}",
            unit=" updates",
            unit_scale=True,
            disable=None,
        ) as bar:
            if missing.split:
                say(f"{experiment.name}: too little free memory for whole programs; {missing.split} are parts")
            early = []
            for job, rows, runs in _each(jobs, pool):
                rows = rows.assign(experiment=experiment.name, scale=scale)
                if job.whole:
                    store.append(rows, runs)
                    job.checkpoint.unlink(missing_ok=True)
                else:
                    early.append(configured(rows, runs))
                bar.update(job.steps)
        rows = pd.concat([store.rows(), *early], ignore_index=True)
    return first_part(experiment, scale, current(experiment, scale, rows[rows["seed"].isin(seeds)]), part)


def _each(jobs: Sequence[Job], pool: Pool) -> Iterator[Outcome]:
    """Each job with its outcome as it ends; none starts before the stage ones that it needs have ended."""
    waiting = list(jobs)
    running: dict[Future[list[Outcome]], Job] = {}
    while waiting or running:
        making = {replica.key for job in (*waiting, *running.values()) for replica in job.replicas}
        ready = [job for job in waiting if not {one.key for replica in job.replicas for one in replica.needs} & making]
        for job in ready[: max(0, pool.room() - len(running))]:
            waiting.remove(job)
            running[pool.submit(job)] = job
        for future in wait(running, GLANCE, FIRST_COMPLETED).done:
            yield from future.result()
            del running[future]


def say(line: str) -> None:
    """From a worker, above the bars of all."""
    tqdm.write(line, file=sys.stderr)


def _at_once(job: Job) -> "Future[list[Outcome]]":
    future: Future[list[Outcome]] = Future()
    future.set_result(execute_or_split(job, say))
    return future


HERE = Pool(_at_once, lambda: 1)  # this process


@contextmanager
def local(count: int) -> Iterator[Pool]:
    """So many processes of this machine."""
    context = multiprocessing.get_context("spawn")
    tqdm.set_lock(context.RLock())  # one for all processes, so that their bars do not overwrite each other
    others, started = multiprocessing.active_children(), set()
    with ProcessPoolExecutor(count, context, _worker, (tqdm.get_lock(), os.getpid())) as executor:

        def submit(job: Job) -> "Future[list[Outcome]]":
            future = executor.submit(_execute, job)
            started.update(multiprocessing.active_children())
            return future

        try:
            yield Pool(submit, lambda: sys.maxsize)
        except BaseException as error:
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()  # it ends its step and saves
            if isinstance(error, BrokenProcessPool):
                executor.shutdown()  # a worker whose end broke the pool has no exit status before it was waited for
                if UNGUARDED in [worker.exitcode for worker in started]:
                    raise UserError(GUARD) from None
                reason = "a training process was killed (out of memory?)"
                raise UserError(f"{reason}; run again: it goes on from its checkpoint") from None
            raise
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


_stopped: list[BaseException] = []  # what ended this worker's work


def _execute(job: Job) -> list[Outcome]:
    """In a worker: stopped by a signal, it tells its parent, or ends where nobody is left to hear of it; the jobs that
    its pool already holds for it are told the same, not begun.
    """
    if _stopped:
        raise _stopped[0]
    try:
        return execute_or_split(job, say)
    except (SystemExit, KeyboardInterrupt) as stopped:
        if (parent := multiprocessing.parent_process()) and not parent.is_alive():
            os._exit(128 + signal.SIGTERM)
        _stopped.append(stopped)
        raise


def _worker(lock, parent: int) -> None:
    """A worker outlives its parent by a step and a checkpoint at most."""
    tqdm.set_lock(lock)
    if sys.platform == "linux":
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
