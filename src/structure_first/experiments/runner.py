"""Runs an experiment: cells x seeds -> rows. What is already there is not run again; a killed run goes on."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from structure_first.errors import UserError, unknown
from structure_first.evidence import flops
from structure_first.evidence.store import Store, environment
from structure_first.experiments.recipe import Experiment, Phase, Recipe, digest, plain
from structure_first.model import weights
from structure_first.model.transfer import transfer
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import keep_freed_memory
from structure_first.training.loop import evaluate, fit
from structure_first.training.stream import Stream


@dataclass(frozen=True)
class Job:
    """One program: a stage of a recipe for some seeds, trained together along the replica axis."""

    cell: str
    recipe: Recipe
    number: int  # which stage of the recipe
    seeds: tuple[int, ...]
    folder: Path
    device: str = "auto"

    @property
    def phase(self) -> Phase:
        return self.recipe.first if self.number == 1 else self.recipe.second

    @property
    def configuration(self) -> str:
        """The key of what is trained, whatever the seed; recipes share a stage one that they have in common."""
        recipe = plain(self.recipe)
        return digest([recipe if self.number == 2 else {**recipe, "transfer": None, "second": None}])

    @property
    def key(self) -> str:
        return digest([self.configuration, self.seeds])

    def stage_one(self) -> "Job":
        """The job that must be done before this one."""
        job = replace(self, number=1)
        return replace(job, cell=f"stage one: {self.recipe.first.label} {job.configuration[:4]}")

    def weights(self, seed: int) -> Path:
        return self.folder / "weights" / self.configuration / f"{seed}.safetensors"

    def shape(self) -> Shape:
        made, recipe = self.phase.make(), self.recipe
        return Shape(made.vocab, made.length - 1, recipe.layers, recipe.heads, recipe.width, self.phase.tied)


def initial_model(job: Job) -> Transformer:
    """The model as the job's stage finds it: fresh, or transferred from stage one's kept weights."""
    if job.number == 1 or job.recipe.first is None:
        return Transformer(job.shape(), job.seeds)
    trained = weights.load(*(job.stage_one().weights(seed) for seed in job.seeds))
    return transfer(trained, job.shape(), job.recipe.transfer, job.seeds)


def mastery(job: Job) -> list[dict]:
    """Measurements of how well each seed's stage one was learnt, at step 0 of the stage two that starts from it."""
    if job.number == 1 or job.recipe.first is None:
        return []
    before, made = job.stage_one(), job.recipe.first.make()
    held_out = Stream(made, job.recipe.first.stage.held_out, job.seeds, "mastery")(0)
    accuracy = evaluate(weights.load(*(before.weights(seed) for seed in job.seeds)), held_out, made)["accuracy"]
    common = {"step": 0, "tokens": 0, "metric": "mastery"}
    return [{"seed": seed, "value": value, **common} for seed, value in zip(job.seeds, accuracy.tolist(), strict=True)]


def trained_model(job: Job) -> tuple[Transformer, Transformer]:
    """The job's model before and after its training, from the weights that were kept."""
    return initial_model(job), weights.load(*(job.weights(seed) for seed in job.seeds))


def execute(job: Job, watch: Callable[[int, Transformer], None] | None = None) -> tuple[pd.DataFrame, dict]:
    """Train one job, from its checkpoint if there is one, and keep its weights: its rows and its manifest."""
    keep_freed_memory()
    began, made = time.monotonic(), job.phase.make()
    model = initial_model(job).to(pick_device(job.device))
    checkpoint = job.folder / "checkpoints" / f"{job.key}.safetensors"
    rows = fit(model, made, job.phase.stage, name=job.cell, checkpoint=checkpoint, watch=watch)
    for replica, seed in enumerate(job.seeds):
        weights.save(job.weights(seed), model, replica)
    frame = pd.DataFrame(mastery(job) + rows).assign(cell=job.cell, stage=job.number)
    frame["flops"] = frame["tokens"] // made.length * flops.training(model.shape, made)
    manifest = {
        "recipe": plain(job.recipe),
        "stage": job.number,
        "configuration": job.configuration,
        "seeds": list(job.seeds),
        "seconds": round(time.monotonic() - began, 1),
        **environment(),
    }
    return frame, manifest


def plan(
    experiment: Experiment, scale: str, seeds: Sequence[int], store: Store, device: str, shares: int
) -> list[list[Job]]:
    """The jobs that are missing, in two waves: what depends on nothing, then what starts from a stage one.

    Each cell's seeds are split into `shares` programs, so that as many processes finish together.
    """
    rows, runs = store.rows(), store.manifest()["runs"]
    rows = rows[rows["scale"] == scale]
    done = {
        (cell, seed, runs[run]["configuration"])
        for cell, seed, run in rows[["cell", "seed", "run"]].drop_duplicates().itertuples(index=False)
    }
    waves: list[dict[str, Job]] = [{}, {}]

    def add(wave: int, make: Callable[[tuple[int, ...]], Job]) -> list[Job]:
        whole = make(tuple(seeds))
        missing = [
            seed
            for seed in seeds
            if (whole.cell, seed, whole.configuration) not in done
            or (whole.number == 1 and not whole.weights(seed).exists())
        ]
        size = -(-len(missing) // shares) or 1
        jobs = [make(tuple(missing[i : i + size])) for i in range(0, len(missing), size)]
        waves[wave].update({job.key: job for job in jobs})
        return jobs

    for cell, recipe in experiment.cells(scale).items():
        job = Job(cell, recipe, 2, tuple(seeds), store.folder, device)
        if add(0 if recipe.first is None else 1, lambda seeds, job=job: replace(job, seeds=seeds)) and recipe.first:
            add(0, lambda seeds, job=job: replace(job, seeds=seeds).stage_one())
    return [sorted(wave.values(), key=lambda job: (job.number, -job.phase.stage.steps)) for wave in waves]


def _worker(threads: int, lock, parent: int) -> None:
    """A worker uses its share of the cores, and does not outlive its parent."""
    torch.set_num_threads(threads)
    tqdm.set_lock(lock)
    if sys.platform == "linux":
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def run(
    experiment: Experiment,
    scale: str,
    seeds: Sequence[int],
    out: Path,
    device: str = "auto",
    workers: int | None = None,
    cells: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Run what is missing of `experiment` for `seeds` and return its rows at `scale`, for those seeds and cells.

    `workers` processes (default: one a core without a GPU, else one) share the jobs. Rows are stored under
    `out/experiment.name` as each job ends.
    """
    if cells is not None:
        known = experiment.cells(scale)
        for cell in cells:
            if cell not in known:
                raise unknown("cell", cell, known)
        chosen = {cell: known[cell] for cell in cells}
        experiment = replace(experiment, cells=lambda scale: chosen)
    store = Store(Path(out) / experiment.name)
    where = pick_device(device)
    workers = workers or (1 if where.type == "cuda" else max(1, len(os.sched_getaffinity(0))))
    with store.locked():
        waves = plan(experiment, scale, seeds, store, device, shares=workers)
        jobs = [job for wave in waves for job in wave]
        work = {job.key: job.phase.stage.steps * len(job.seeds) for job in jobs}
        with tqdm(total=sum(work.values()), desc=f"{experiment.name}, {scale}", unit="step", disable=None) as bar:
            for wave in waves:
                for job, (rows, manifest) in _each(wave, workers):
                    store.append(rows.assign(experiment=experiment.name, scale=scale), job.key, manifest)
                    (job.folder / "checkpoints" / f"{job.key}.safetensors").unlink(missing_ok=True)
                    bar.update(work[job.key])
        rows = store.rows()
    wanted = set(experiment.cells(scale)) | {job.stage_one().cell for job in _whole(experiment, scale, store)}
    return rows[(rows["scale"] == scale) & rows["seed"].isin(seeds) & rows["cell"].isin(wanted)].reset_index(drop=True)


def _whole(experiment: Experiment, scale: str, store: Store) -> list[Job]:
    cells = experiment.cells(scale).items()
    return [Job(cell, recipe, 2, (), store.folder) for cell, recipe in cells if recipe.first]


def _each(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, tuple[pd.DataFrame, dict]]]:
    """Each job with its outcome, as it ends."""
    if workers == 1 or len(jobs) < 2:
        yield from ((job, execute(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    tqdm.set_lock(context.RLock())  # one for all processes, so that their bars do not overwrite each other
    setup = dict(initializer=_worker, initargs=(threads, tqdm.get_lock(), os.getpid()))
    with ProcessPoolExecutor(workers, mp_context=context, **setup) as pool:
        futures = {pool.submit(execute, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                "a training process was killed (out of memory?); run again: it goes on from its checkpoint"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
