"""What is trained: a recipe is stage one, a transfer, stage two; a cell is a recipe and what it is to an experiment."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from structure_first.data.batch import Source
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body, Shape
from structure_first.training.stage import Stage
from structure_first.versions import versions


@dataclass(frozen=True)
class Phase:
    """A source by name, and how it is trained on."""

    source: str  #: a name that `data.registry.source` knows
    stage: Stage
    settings: Mapping[str, int | float | None] = field(default_factory=dict)
    tied: bool = False  #: whether the head reads with the embeddings it embeds with
    dropout: float = 0.0

    @property
    def label(self) -> str:
        """The source and its settings, for people."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.source}({settings})"

    @property
    def rules(self) -> set[str]:
        """The rules that make its data and what training draws: sources, what changes them, a corpus, its tokeniser."""
        return {*re.split(r"[:+/]", self.source), *(["dropout"] if self.dropout else [])}

    def at(self, **changes) -> "Phase":
        """The same with those changes of its stage, as `at(lr=1e-3)`."""
        return replace(self, stage=replace(self.stage, **changes))

    def make(self) -> Source:
        """The source itself; raises `UserError` where there is none of that name, or not with those settings."""
        return source(self.source, **self.settings)


@dataclass(frozen=True)
class Recipe:
    """Stage one (or none), what of it is carried over, stage two (or none); the body is as large in both.

    Stage one may be a recipe itself: all of what it trains then comes before, as pretraining does before fine-tuning.
    """

    stage_one: "Phase | Recipe | None"
    transfer: Transfer | None
    stage_two: Phase | None
    body: Body = Body()
    body_stage_one: Body | None = None  #: the same size, drawn otherwise in stage one
    beside: Mapping[str, Phase] = field(default_factory=dict)  #: further stage ones, for `from(name)` of the transfer
    precision: str | None = None  #: None: float32, but for wide bodies on a GPU; the manifest of a run says which

    def shape(self, phase: Phase, source: Source) -> Shape:
        """The transformer that a stage trains on what it made."""
        return Shape(source.vocab, source.length - 1, phase.tied, phase.dropout, **asdict(self.body))

    @property
    def last(self) -> Phase:
        """What is trained on in the end."""
        phase = self.stage_two or self.stage_one
        if not isinstance(phase, Phase):
            raise UserError("a recipe ends with a phase, its stage two or else its stage one; this one has neither")
        return phase

    @property
    def stage(self) -> int:
        """Which stage it ends with: 1 or 2. Its batches follow from that and the seed."""
        return 1 if self.stage_two is None else 2

    @cached_property
    def alone(self) -> "Recipe":
        """Its stage one alone; recipes share one that they have in common."""
        return self.only(self.stage_one)

    def only(self, phase: "Phase | Recipe | None") -> "Recipe":
        """That stage one alone."""
        if isinstance(phase, Recipe):
            return phase
        body = self.body_stage_one or self.body
        return replace(self, stage_one=phase, transfer=None, stage_two=None, body=body, body_stage_one=None, beside={})

    @property
    def title(self) -> str:
        """What the cell of a stage one alone is called."""
        return f"stage one: {self.last.label} {self.key[:4]}"

    @property
    def others(self) -> dict[str, str]:
        """The files of other runs' weights that its transfer takes, by the group that they are taken for."""
        rules = asdict(self.transfer) if self.transfer else {}
        taken = {part: rule[5:-1] for part, rule in rules.items() if rule.startswith("from(")}
        return {part: name for part, name in taken.items() if name not in self.beside}

    @property
    def rules(self) -> set[str]:
        """All that makes its data and weights, by name."""
        carried = asdict(self.transfer).values() if self.transfer else ()
        phases = [phase.rules for phase in (self.stage_one, self.stage_two, *self.beside.values()) if phase]
        return set().union(*phases, (rule.partition("(")[0] for rule in carried))

    @cached_property
    def key(self) -> str:
        """A name for what is trained: for all that differs from the defaults, so that a field which comes later changes
        no key, and for the versions of its rules.
        """
        return digest([brief(self), versions(self.rules)])


@dataclass(frozen=True)
class Factors:
    """What a cell is to its experiment: what figures and tables group and select by. None: it does not apply."""

    task: str | None = None  #: the diagnostic or the corpus of stage two
    front: str = "random init"  #: what stage two starts from: a source as people call it, or a start without one
    carried: str | None = None  #: what of stage one goes across, and how
    share: float | None = None  #: the tokens of stage one, of those of stage two
    text: float = 1.0  #: of all the text, what stage two reads
    width: int | None = None  #: of the model, where the experiment has several
    swept: str | None = None  #: the one setting that differs from the experiment's own
    amount: float | None = None  #: and what it is


@dataclass(frozen=True)
class Cell:
    """A recipe, and what it is to its experiment; its name is for people, and no program takes it apart."""

    recipe: Recipe
    factors: Factors = Factors()


@dataclass(frozen=True)
class Experiment:
    """A name, what it asks, and its cells and seeds at each scale; a cell that needs no factors is its recipe alone."""

    name: str
    asks: str
    cells: Callable[[str], Mapping[str, Cell | Recipe]]
    seeds: Mapping[str, int]  #: how many, at each scale
    first_seed: int = 0  #: away from the seeds that a search of settings looked at
    live: tuple[str, ...] = ()  #: the cells that a chapter runs before the reader's eyes
    live_seeds: range = range(0)  #: of no stored row, so that a reader's run is evidence of its own
    live_part: float = 1.0  #: of the updates of stage two that it makes there
    _made: dict[str, dict[str, Recipe]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def recipes(self, scale: str) -> dict[str, Recipe]:
        """The recipe of each cell, made once, since each keeps its key."""
        if scale not in self._made:
            cells = self.cells(scale).items()
            self._made[scale] = {name: cell.recipe if isinstance(cell, Cell) else cell for name, cell in cells}
        return self._made[scale]

    def factors(self, scale: str) -> pd.DataFrame:
        """A line for each cell, a column for each factor."""
        cells = self.cells(scale).items()
        lines = {name: asdict(cell.factors if isinstance(cell, Cell) else Factors()) for name, cell in cells}
        columns = [factor.name for factor in fields(Factors)]
        return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("cell")


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that name a configuration."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON holds it."""
    return json.loads(json.dumps(asdict(recipe)))


def brief(value: Any) -> Any:
    """The same without the fields that are at their defaults."""
    if not is_dataclass(value):
        return {name: brief(one) for name, one in value.items()} if isinstance(value, Mapping) else value
    given = {}
    for each in fields(value):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if (one := getattr(value, each.name)) != default:
            given[each.name] = brief(one)
    return given
