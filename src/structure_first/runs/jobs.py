"""A job: one stage of some replicas, trained as one program. What it starts from, what it leaves behind."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch

from structure_first.cost import flops
from structure_first.data.batch import Source
from structure_first.errors import UserError
from structure_first.evidence.store import environment
from structure_first.model import weights
from structure_first.model.transfer import Transfer, transfer
from structure_first.model.transformer import Shape, Transformer
from structure_first.runs.recipe import Phase, Recipe, brief, digest, plain
from structure_first.training import processes
from structure_first.training.compute import Compute
from structure_first.training.devices import choose_products, keep_freed_memory, out_of_memory
from structure_first.training.devices import device as pick_device
from structure_first.training.loop import fit
from structure_first.training.predictions import evaluate
from structure_first.training.stream import Stream

ROUNDED = 256  # the width from which on a GPU's products are the step, and are taken in bfloat16


@dataclass(frozen=True)
class Replica:
    """One model of an experiment: a cell's recipe, and a seed. A recipe without stage two is a stage one alone."""

    cell: str
    recipe: Recipe
    seed: int
    starts_another: bool = field(default=False, kw_only=True)  #: as its stage one

    @property
    def phase(self) -> Phase:
        return self.recipe.last

    @property
    def stage(self) -> int:
        """What it is to the experiment: 1 or 2."""
        return 1 if self.starts_another else self.recipe.stage

    @cached_property
    def configuration(self) -> str:
        """The key of what is trained, whatever the seed."""
        return self.recipe.key

    @cached_property
    def before(self) -> "Replica | None":
        """The stage one that this one starts from."""
        if self.recipe.stage_two is None or self.recipe.stage_one is None:
            return None
        return self._alone(self.recipe.stage_one)

    @cached_property
    def beside(self) -> "dict[str, Replica]":
        """The further stage ones that this one takes weights from, by name."""
        return {name: self._alone(phase) for name, phase in self.recipe.beside.items()}

    def _alone(self, phase: Phase | Recipe) -> "Replica":
        recipe = self.recipe.only(phase)
        return Replica(recipe.title, recipe, self.seed, starts_another=True)

    @property
    def needs(self) -> "list[Replica]":
        """The stage ones that must have ended before this one begins."""
        return [*([self.before] if self.before else []), *self.beside.values()]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.cell, self.configuration, self.seed

    @property
    def weights_name(self) -> str:
        """What its weights are called, among all that are kept."""
        return f"{self.configuration}/{self.seed}"

    @cached_property
    def program(self) -> str:
        """Replicas of the same program can train together."""
        body = replace(self.recipe, stage_one=None, transfer=None, body_stage_one=None, beside={}, stage_two=self.phase)
        return digest([brief(body), self.recipe.stage])


@dataclass(frozen=True)
class Job:
    """One program: replicas that have their phase and their body's size in common."""

    replicas: tuple[Replica, ...]
    folder: Path
    device: str = "auto"
    part: float = 1.0  #: of its updates, after which it stops for now

    @classmethod
    def of(cls, cell: str, recipe: Recipe, seeds: Iterable[int], folder: Path, device: str = "auto") -> "Job":
        """Some seeds of one cell."""
        return cls(tuple(Replica(cell, recipe, seed) for seed in seeds), folder, device)

    @property
    def phase(self) -> Phase:
        return self.replicas[0].phase

    @property
    def stage(self) -> int:
        return self.replicas[0].stage

    @property
    def name(self) -> str:
        cells = list(dict.fromkeys(replica.cell for replica in self.replicas))
        return cells[0] if len(cells) == 1 else f"{self.phase.label}, {len(cells)} cells"

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(replica.seed for replica in self.replicas)

    @property
    def steps(self) -> int:
        """Updates of all replicas together."""
        return self.until * len(self.replicas)

    @property
    def until(self) -> int:
        """The update after which it stops."""
        return self.phase.stage.first(self.part)

    @property
    def whole(self) -> bool:
        """Whether it trains to its end."""
        return self.part == 1

    @cached_property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / f"{digest([replica.key for replica in self.replicas])}.safetensors"

    @property
    def source(self) -> Source:
        """What it trains on."""
        return self.phase.make()

    @property
    def shape(self) -> Shape:
        return self.replicas[0].recipe.shape(self.phase, self.source)

    @property
    def compute(self) -> Compute:
        """In bfloat16 where that pays, unless the recipe says: wide bodies on a GPU. The diagnostics' are narrow."""
        recipe = self.replicas[0].recipe
        pays = recipe.body.width >= ROUNDED and pick_device(self.device).type == "cuda"
        return Compute(precision=recipe.precision or ("bfloat16" if pays else "float32"))

    def by_recipe(self) -> list[tuple[list[int], list[Replica]]]:
        """The replicas of each recipe, and their indices in the program."""
        by_configuration = groupby(enumerate(self.replicas), key=lambda each: each[1].configuration)
        groups = [list(group) for _, group in by_configuration]
        return [([index for index, _ in group], [replica for _, replica in group]) for group in groups]

    def split(self) -> "list[Job]":
        """Two jobs, each with half of the replicas."""
        middle = len(self.replicas) // 2
        return [replace(self, replicas=half) for half in (self.replicas[:middle], self.replicas[middle:])]


def weights_path(replica: Replica, folder: Path) -> Path:
    """Where a replica's trained weights are kept."""
    return folder / "weights" / f"{replica.weights_name}.safetensors"


def trained(replicas: Iterable[Replica], folder: Path) -> Transformer:
    """The kept weights of `replicas`, which have one shape."""
    return weights.load(*(weights_path(replica, folder) for replica in replicas))


@torch.no_grad()
def initial_model(job: Job) -> Transformer:
    """The model as the job's stage finds it: fresh, or transferred from stage one's kept weights."""
    models = [(indices, initial_replicas(replicas, job)) for indices, replicas in job.by_recipe()]
    if len(models) == 1:
        return models[0][1]
    model = Transformer(job.shape, job.seeds, fresh=False)
    for indices, one in models:
        for whole, new in zip(model.parameters(), one.parameters(), strict=True):
            whole[indices] = new
    return model


def initial_replicas(replicas: Sequence[Replica], job: Job) -> Transformer:
    """The replicas of one recipe as the job's stage finds them."""
    recipe, seeds = replicas[0].recipe, [replica.seed for replica in replicas]
    before = [replica.before for replica in replicas if replica.before]
    if not before:
        return Transformer(job.shape, seeds)
    others = {path: weights.load(*[Path(path)] * len(seeds)) for path in set(recipe.others.values())}
    others |= {name: trained([each.beside[name] for each in replicas], job.folder) for name in recipe.beside}
    return transfer(trained(before, job.folder), job.shape, recipe.transfer or Transfer(), seeds, others)


@torch.no_grad()
def mastery(job: Job) -> list[dict]:
    """Measurements of what stage one left to each replica, at step 0 of the stage two that starts from it.

    How well it was learnt; and the root mean square of its embeddings' mean row, of the rows about that, and of its
    positions.
    """
    rows = []
    for indices, replicas in job.by_recipe():
        if before := [replica.before for replica in replicas if replica.before]:
            phase, model = before[0].phase, trained(before, job.folder)
            source = phase.make()
            held_out = Stream(source, phase.stage.held_out, [each.seed for each in before], "mastery")(0)
            mean = model.embedding.mean(1, keepdim=True)
            tables = {"mean row": mean, "rows": model.embedding - mean, "positions": model.position}
            measured = {f"rms {name}": table.square().mean((1, 2)).sqrt() for name, table in tables.items()}
            measured["mastery"] = evaluate(model, held_out, source)["accuracy"]
            rows += [
                {"replica": index, "value": value, "step": 0, "tokens": 0, "metric": metric}
                for metric, values in measured.items()
                for index, value in zip(indices, values.tolist(), strict=True)
            ]
    return rows


def trained_model(job: Job) -> tuple[Transformer, Transformer]:
    """The job's model before and after its training, from the weights that were kept."""
    return initial_model(job), trained(job.replicas, job.folder)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread, so that a program's rows do not depend on how many it might have had."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def execute(
    job: Job,
    watch: Callable[[int, Transformer], None] | None = None,
    before_training: Callable[[Job], list[dict]] = lambda job: [],
) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Train one job, from its checkpoint if there is one, and keep its weights: its rows, and a manifest for each cell.

    The rows begin with what `before_training` measures. The checkpoint is left for the caller to delete, once they are
    stored; a part of a job keeps no weights but that. Within `processes.joined`, all processes call this alike; the
    first alone writes.
    """
    keep_freed_memory()
    choose_products(0)  # as in a fresh process, whatever was trained in this one before
    began, source, stage = time.monotonic(), job.source, job.phase.stage
    model = initial_model(job).to(pick_device(job.device))
    key, compute = f"stage {job.replicas[0].recipe.stage}", job.compute  # it seeds the batches: alike in all cells
    rows = fit(
        model,
        source,
        stage,
        random_key=key,
        label=job.name,
        checkpoint=job.checkpoint,
        until=job.until,
        watch=watch,
        compute=compute,
    )
    if job.whole and processes.is_main():
        for index, replica in enumerate(job.replicas):
            weights.save(weights_path(replica, job.folder), model, index)
    frame = pd.DataFrame(before_training(job) + rows).assign(stage=job.stage)
    spent = {step: flops.spent(stage, source, model.shape, step) for step in set(frame["step"])}
    frame["flops"] = frame["step"].map(spent)
    for column in ("cell", "seed"):
        frame[column] = [getattr(job.replicas[index], column) for index in frame["replica"]]
    seconds, runs = round(time.monotonic() - began, 1), {}
    for cell, of_cell in groupby(job.replicas, key=lambda replica: replica.cell):
        group = list(of_cell)
        run = digest([replica.key for replica in group])
        frame.loc[frame["cell"] == cell, "run"] = run
        runs[run] = {
            "recipe": plain(group[0].recipe),
            "stage": job.stage,
            "source": {"name": source.name, **source.settings},  # of a packed corpus, its tokens and their digest
            "configuration": group[0].configuration,
            "seeds": [replica.seed for replica in group],
            "seconds": seconds,  # of the program, since it was last started
            "replicas": len(job.replicas),  # of the program
            "precision": compute.precision,
            **environment(),
        }
    return frame.drop(columns="replica"), runs


@one_thread()
def execute_or_split(
    job: Job, say: Callable[[str], None], watch: Callable[[int, Transformer], None] | None = None
) -> list[tuple[Job, pd.DataFrame, dict[str, dict]]]:
    """Execute an experiment's job, in halves of halves where the memory is too small for it, and say so."""
    try:
        return [(job, *execute(job, watch, mastery))]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(job.replicas) == 1:
            raise UserError(f"{job.name}: one model alone needs more memory than there is; lower the batch") from None
    say(f"{job.name}: {len(job.replicas)} replicas need more memory than there is; training them as two programs")
    return [done for half in job.split() for done in execute_or_split(half, say, watch)]
