"""A two-stage run on a corpus of one's own, as a YAML file: read safely, checked whole, every mistake one line."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, field_validator

from structure_first.cost import flops
from structure_first.data.registry import source
from structure_first.errors import UserError, check_range
from structure_first.model.shapes import body
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body, Shape
from structure_first.pretraining.mistakes import mistake, renamed
from structure_first.pretraining.reading import EXAMPLE, read_yaml
from structure_first.runs.recipe import Phase, Recipe
from structure_first.training.compute import Compute
from structure_first.training.stage import Stage

HELD_OUT_WINDOWS = 32  # that should be there to be evaluated on
RANGES = {  # of what `Shape` and `Stage` do not check; what no machine has memory or hours for is a slip of the hand
    "context": (1, (1 << 16) - 1),
    "vocab": (1, 1 << 24),
    "limit_tokens": (1, 10**13),
    "seed": (0, 2**31 - 1),
}
RUNGS = 100  # of a curriculum


def narrowed(kind: type, value: Any) -> Any:
    """The dataclass `kind` that `value`, of a subclass, is."""
    return kind(**{each.name: getattr(value, each.name) for each in fields(kind)})


@dataclass(frozen=True, kw_only=True)
class ShapeSection(Shape):
    """The transformer in both stages; vocabulary and context are the data's. `name` stands for layers, heads, width."""

    vocab: int = field(init=False, default=1)
    context: int = field(init=False, default=1)
    layers: int = field()
    heads: int = field()
    width: int = field()
    tied: bool = True
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """A stage whose size has to be said; what is left out is as in `Stage`, but for the few that suit a corpus."""

    steps: int = field()
    batch: int = field()
    lr: float = field()
    warmup: int = 0
    held_out: int = 128
    curriculum: Annotated[tuple[int, ...], Strict(False)] = ()  # a list, in YAML

    def __post_init__(self):
        if len(self.curriculum) > RUNGS:
            raise UserError(f"the curriculum has {len(self.curriculum):,} lengths; name {RUNGS} at most")
        super().__post_init__()

    @property
    def stage(self) -> Stage:
        return narrowed(Stage, self)

    def stopped_at(self, steps: int) -> "Training":
        """The same for so many steps at most."""
        fewer = {each: min(getattr(self, each), steps) for each in ("steps", "warmup", "evaluate_every")}
        return replace(self, **fewer)


@dataclass(frozen=True, kw_only=True)
class StageOne(Training):
    """Stage one: a source by its name in the registry, and how it is trained on."""

    source: str
    settings: Mapping[str, int | float | None] = field(default_factory=dict)
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        Shape(vocab=1, context=1, dropout=self.dropout)  # says what is wrong with it
        data = self.phase.make()
        for length in self.curriculum:
            if data.at(length).length > data.length:
                raise UserError(f"the curriculum's {length} is longer than the source itself; leave it out")

    @property
    def phase(self) -> Phase:
        return Phase(self.source, self.stage, self.settings, self.tied, self.dropout)

    @property
    def tokens(self) -> int:
        """How many are trained on, unless the source is mastered before."""
        return flops.tokens(self.stage, self.phase.make())


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus by name or path and how it is packed, or a folder that `structure-first pack` made.

    A path is relative to where the command is given.
    """

    name: str | None = None
    packed: str | None = None
    context: int
    tokeniser: str | None = None
    vocab: int | None = None  # of the tokeniser, where it is of the hub and a plan shall not ask there
    limit_tokens: int | None = None  # about as many as stage two reads, if left out
    held_out: float = 0.01
    answers: bool = False  # of questions, in characters: they alone bear loss
    text_column: str | None = None
    seed: int = 0

    def __post_init__(self):
        if (self.name is None) == (self.packed is None):
            raise UserError("name either a corpus (name: c4, or a path) or a packed folder (packed: FOLDER)")
        name = "" if self.packed is not None else self.unpacked[0]
        of_packing = ("limit_tokens", "held_out", "text_column", "seed")
        defaults = {each.name: each.default for each in fields(self)}
        if self.packed is not None and (given := [k for k in of_packing if getattr(self, k) != defaults[k]]):
            raise UserError(f"{given[0]} was settled when {self.packed} was packed; leave it out")
        if name.startswith("~") and os.path.expanduser(name) == name:
            raise UserError(f"{name}: there is no user of that name; write ./{name} for a file called so")
        for field_name, limits in RANGES.items():
            check_range(field_name, getattr(self, field_name), *limits)
        if self.answers and self.tokeniser not in (None, "characters"):
            raise UserError(f"answers are found in characters only, not in {self.tokeniser}; leave answers out")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out must be a share above 0 and below 1, not {self.held_out}")

    @property
    def title(self) -> str:
        return self.name or str(self.packed)

    @property
    def unpacked(self) -> tuple[str, str]:
        """The corpus and the tokeniser of what is yet to be packed."""
        if self.name is None or self.tokeniser is None:
            raise UserError("tokeniser is missing; write bytes, characters, bpe:VOCAB, a folder, or a hub name")
        return self.name, self.tokeniser


class Config(BaseModel):
    """Everything that a run of two stages is. `compute` is how: it changes rounding, and what is dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    seed: int = 0
    shape: ShapeSection
    stage_one: StageOne | None = None
    transfer: Transfer = Transfer()
    corpus: Corpus
    stage_two: Training
    compute: Compute = Compute()
    allow_larger_stage_one: bool = False  # stage one may have more tokens than stage two

    @field_validator("shape", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, dict) and isinstance(name := value.get("name"), str):
            return body(name) | value
        return value

    @field_validator("*", mode="wrap")  # the last before and wrap validator is the outermost
    @classmethod
    def located(cls, value: Any, handler: Any) -> Any:
        """Let pydantic know where a mistake is that the registry or a dataclass found."""
        try:
            return handler(value)
        except UserError as error:
            raise ValueError(str(error)) from None

    def stopped_at(self, steps: int | None) -> "Config":
        """The same with so many steps a stage at most, and no more corpus than they need: for a try."""
        if steps is None:
            return self
        if steps < 1:
            raise UserError(f"--steps must be 1 or more, not {steps}")
        stage_one = self.stage_one and self.stage_one.stopped_at(steps)
        fewer = dict(stage_one=stage_one, stage_two=self.stage_two.stopped_at(steps), allow_larger_stage_one=True)
        short = self.model_copy(update=fewer)
        if self.corpus.limit_tokens is None:
            return short
        limit = min(self.corpus.limit_tokens, short.enough)
        return short.model_copy(update={"corpus": replace(self.corpus, limit_tokens=limit)})

    @property
    def enough(self) -> int:
        """How much of a corpus stage two needs: what it reads, and what holds some documents to hold out."""
        return max(self.tokens, int(HELD_OUT_WINDOWS * (self.corpus.context + 1) / max(1e-20, self.corpus.held_out)))

    @property
    def tokens(self) -> int:
        """How many stage two trains on."""
        return flops.tokens(self.stage_two.stage, source("random", length=self.corpus.context + 1))

    @property
    def recipe(self) -> Recipe:
        """What is trained. The registry makes no source of a corpus of one's own: stage two's is its description."""
        shape, corpus = self.shape, self.corpus
        stage_one = self.stage_one.phase if self.stage_one else None
        stage_two = Phase(corpus.title, self.stage_two.stage, {"context": corpus.context}, shape.tied, shape.dropout)
        return Recipe(stage_one, self.transfer if stage_one else None, stage_two, narrowed(Body, shape))

    def plain(self) -> dict:
        """As JSON would hold it; `read` reads it."""
        of_corpus = set() if self.corpus.answers else {"answers"}  # so that runs from before it keep their keys
        return self.model_dump(mode="json", exclude={"shape": {"vocab", "context"}, "corpus": of_corpus})


def read(path: Path) -> Config:
    """The configuration in a file; raises `UserError` in one line that names the file and the key."""
    given = read_yaml(path)
    if given is None:
        raise UserError(f"{path} is empty; write one like {EXAMPLE}")
    try:
        config = Config.model_validate_json(json.dumps(renamed(given)))
        check(config)
    except ValidationError as error:
        raise UserError(f"{path}: {mistake(error, Config)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def check(config: Config) -> None:
    """Raise `UserError` where the seed is out of range or one section forbids what another says."""
    check_range("seed", config.seed, *RANGES["seed"])
    longest = config.corpus.context + 1
    if wrong := [length for length in config.stage_two.curriculum if not 1 < length <= longest]:
        raise UserError(f"stage_two.curriculum: lengths must be from 2 to context + 1 = {longest:,}, not {wrong[0]:,}")
    if config.corpus.limit_tokens is not None and config.corpus.limit_tokens < longest:
        raise UserError(f"corpus.limit_tokens must be context + 1 = {longest:,} or more, or left out")
    most = RANGES["limit_tokens"][1]
    if config.corpus.packed is None and config.corpus.limit_tokens is None and config.enough > most:
        problem = f"stage two needs {config.enough:,} tokens, of which {most:,} can be packed"
        raise UserError(f"{problem}; lower stage_two.steps, raise corpus.held_out, or write corpus.limit_tokens")
    stage_one_tokens, stage_two_tokens = config.stage_one.tokens if config.stage_one else 0, config.tokens
    if stage_one_tokens > stage_two_tokens and not config.allow_larger_stage_one:
        problem = f"stage one would read {stage_one_tokens:,} tokens, more than stage two's {stage_two_tokens:,}"
        raise UserError(f"{problem}; lower stage_one.steps or stage_one.batch, or write allow_larger_stage_one: true")
