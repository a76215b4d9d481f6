"""A job: one stage of some replicas, trained as one program. What it starts from, what it leaves behind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import torch

from structure_first.data.batch import Source
from structure_first.model import weights
from structure_first.model.transfer import Transfer, transfer
from structure_first.model.transformer import Shape, Transformer
from structure_first.runs.recipe import Phase, Recipe, brief, digest
from structure_first.training.compute import Compute
from structure_first.training.devices import device as pick_device

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
        return self._starting(self.recipe.alone)

    @cached_property
    def beside(self) -> "dict[str, Replica]":
        """The further stage ones that this one takes weights from, by name."""
        return {name: self._starting(self.recipe.only(phase)) for name, phase in self.recipe.beside.items()}

    def _starting(self, recipe: Recipe) -> "Replica":
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
        groups = [list(group) for _, group in groupby(enumerate(self.replicas), key=lambda each: each[1].configuration)]
        return [([index for index, _ in group], [replica for _, replica in group]) for group in groups]


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
