"""A recipe: stage one, a transfer, stage two. Everything a cell of an experiment is."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from structure_first.data.batch import Source
from structure_first.data.registry import source
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Shape
from structure_first.training.stage import Stage


@dataclass(frozen=True)
class Phase:
    """A source by name, and how it is trained on."""

    source: str
    stage: Stage
    settings: Mapping[str, int | float] = field(default_factory=dict)
    tied: bool = False  # whether the head reads with the embeddings it embeds with

    @property
    def label(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.source}({settings})"

    def at(self, **changes) -> "Phase":
        """The same with those changes of its stage, as `at(lr=1e-3)`."""
        return replace(self, stage=replace(self.stage, **changes))

    def make(self) -> Source:
        return source(self.source, **self.settings)


@dataclass(frozen=True)
class Recipe:
    """Stage one (or none), what of it is carried over, stage two (or none); the body's size is the same in both."""

    stage_one: Phase | None
    transfer: Transfer | None
    stage_two: Phase | None
    layers: int = 2
    heads: int = 4
    width: int = 16
    init: float = 0.02  # standard deviation of fresh weights
    init_embedding: float | None = None  # and of fresh embeddings and positions; None: the same
    init_stage_one: tuple[float, float] | None = None  # both of them in stage one, where they are others there

    def shape(self, vocab: int, context: int, tied: bool = False) -> Shape:
        """The transformer of a stage with that vocabulary and context."""
        init_embedding = self.init if self.init_embedding is None else self.init_embedding
        body = dict(layers=self.layers, heads=self.heads, width=self.width, init=self.init)
        return Shape(vocab, context, tied=tied, init_embedding=init_embedding, **body)

    @property
    def alone(self) -> "Recipe":
        """Its stage one alone; recipes share one that they have in common."""
        init, init_embedding = self.init_stage_one or (self.init, self.init_embedding)
        begun = {"init": init, "init_embedding": init_embedding, "init_stage_one": None}
        return replace(self, transfer=None, stage_two=None, **begun)

    @cached_property
    def key(self) -> str:
        """A name for what is trained; a field that came later counts only where it is not at its default, so that older
        rows keep their keys.
        """
        later = {field.name: field.default for field in fields(self) if field.name.startswith("init")}
        return digest([{name: value for name, value in plain(self).items() if later.get(name, ...) != value}])


@dataclass(frozen=True)
class Experiment:
    """A name, what it asks, and its cells and seeds at each scale."""

    name: str
    asks: str
    cells: Callable[[str], dict[str, Recipe]]
    seeds: Mapping[str, int]  # how many, at each scale
    first_seed: int = 0  # away from the seeds that a search of settings looked at
    live: tuple[str, ...] = ()  # the cells that a chapter runs before the reader's eyes
    live_seeds: range = range(0)  # of no stored row, so that a reader's run is evidence of its own


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that name a configuration."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:12]


def plain(value: Any) -> Any:
    """A dataclass as JSON would hold it."""
    return json.loads(json.dumps(asdict(value) if hasattr(value, "__dataclass_fields__") else value))
