"""A two-stage run on a corpus of one's own, as a YAML file: read safely, checked whole, every mistake one line."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Strict, ValidationError, field_validator

from structure_first.data.batch import Source
from structure_first.data.registry import source
from structure_first.errors import UserError, unknown
from structure_first.model.shapes import body
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Shape
from structure_first.runs.recipe import Phase
from structure_first.training.compute import Compute
from structure_first.training.stage import Stage

EXAMPLE = "book/configs/quick.yaml"
LAST_SEED = 2**31 - 1
LONGEST = 1 << 16  # tokens in a context
HELD_OUT_WINDOWS = 32  # that should be there to be evaluated on


def narrowed(kind: type, value: Any, **changes: Any) -> Any:
    """The dataclass `kind` that `value`, of a subclass, is; with some fields changed."""
    return kind(**{each.name: getattr(value, each.name) for each in fields(kind)} | changes)


@dataclass(frozen=True, kw_only=True)
class Body(Shape):
    """The transformer in both stages; vocabulary and context are the data's. `name` stands for layers, heads, width."""

    vocab: int = field(init=False, default=1)
    context: int = field(init=False, default=1)
    name: str | None = None
    layers: int = field()
    heads: int = field()
    width: int = field()
    tied: bool = True

    def at(self, vocab: int, context: int, **changes: Any) -> Shape:
        return narrowed(Shape, self, vocab=vocab, context=context, **changes)


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """A stage whose size has to be said; what is left out is as in `Stage`, but for the few that suit a corpus."""

    steps: int = field()
    batch: int = field()
    lr: float = field()
    warmup: int = 0
    held_out: int = 128
    curriculum: Annotated[tuple[int, ...], Strict(False)] = ()  # a list, in YAML

    @property
    def stage(self) -> Stage:
        return narrowed(Stage, self)

    def updates(self, length: int | None, steps: int | None = None) -> Counter[int | None]:
        """How many of the first `steps` updates, or of all, have each length setting; `length` is the source's own."""
        rungs, last, counts = 2 * len(self.curriculum), self.steps if steps is None else steps, Counter()
        ends = [min(last, -(-rung * self.steps // rungs)) for rung in range(1, len(self.curriculum) + 1)]
        for each, start, end in zip((*self.curriculum, length), (0, *ends), (*ends, last), strict=True):
            counts[each] += end - start
        return +counts

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
        made = self.made
        for length in self.curriculum:
            if made.at(length).length > made.length:
                raise UserError(f"the curriculum's {length} is longer than the source itself; leave it out")

    @cached_property
    def made(self) -> Source:
        return source(self.source, **self.settings)

    @property
    def tokens(self) -> int:
        """How many are trained on, unless the source is mastered before."""
        counts = self.updates(None)
        return self.batch * sum(count * self.made.at(length).length for length, count in counts.items())

    @property
    def label(self) -> str:
        return Phase(self.source, self.stage, self.settings, self.tied).label


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
    text_column: str | None = None
    seed: int = 0

    def __post_init__(self):
        if (self.name is None) == (self.packed is None):
            raise UserError("name either a corpus (name: c4, or a path) or a packed folder (packed: FOLDER)")
        if self.name is not None and self.tokeniser is None:
            raise UserError("tokeniser is missing; write bytes, characters, bpe:VOCAB, a folder, or a hub name")
        of_packing = ("limit_tokens", "held_out", "text_column", "seed")
        defaults = {each.name: each.default for each in fields(self)}
        if self.packed is not None and (given := [k for k in of_packing if getattr(self, k) != defaults[k]]):
            raise UserError(f"{given[0]} was settled when {self.packed} was packed; leave it out")
        if not 1 <= self.context < LONGEST:
            raise UserError(f"context must be from 1 to {LONGEST - 1:,} tokens, not {self.context:,}")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out must be a share above 0 and below 1, not {self.held_out}")
        for name in ("limit_tokens", "vocab"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, not {value}")
        if self.seed < 0:
            raise UserError(f"the seed must be 0 or more, not {self.seed}")


class Config(BaseModel):
    """Everything that a run of two stages is. `compute` is how, and changes no result but by rounding."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    seed: int = 0
    shape: Body
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

    @field_validator("seed")
    @classmethod
    def seed_in_range(cls, value: int) -> int:
        if not 0 <= value <= LAST_SEED:
            raise ValueError(f"must be from 0 to {LAST_SEED:,}, not {value:,}")
        return value

    def stopped_at(self, steps: int | None) -> "Config":
        """The same with so many steps a stage at most, and no more corpus than they need: for a try."""
        if steps is None:
            return self
        if steps < 1:
            raise UserError(f"--steps must be 1 or more, not {steps}")
        stages = dict(
            stage_one=self.stage_one and self.stage_one.stopped_at(steps), stage_two=self.stage_two.stopped_at(steps)
        )
        short = self.model_copy(update=stages | {"allow_larger_stage_one": True})
        if self.corpus.limit_tokens is None:
            return short
        limit = min(self.corpus.limit_tokens, short.enough)
        return short.model_copy(update={"corpus": replace(self.corpus, limit_tokens=limit)})

    @property
    def enough(self) -> int:
        """How much of a corpus stage two needs: what it reads, and what holds some documents to hold out."""
        return max(self.tokens, int(HELD_OUT_WINDOWS * (self.corpus.context + 1) / self.corpus.held_out))

    @property
    def tokens(self) -> int:
        """How many stage two trains on."""
        counts = self.stage_two.updates(self.corpus.context + 1)
        return self.stage_two.batch * sum(count * length for length, count in counts.items())

    def plain(self) -> dict:
        """As JSON would hold it; `read` reads it."""
        return self.model_dump(mode="json", exclude={"shape": {"vocab", "context"}})


class Loader(yaml.SafeLoader):
    """YAML in which 5e-4 is a number, as it is everywhere else, and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))


def read(path: Path) -> Config:
    """The configuration in a file; raises `UserError` in one line that names the file and the key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        given = yaml.load(text, Loader)  # a SafeLoader
        text = json.dumps(given, default=str)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a YAML file such as {EXAMPLE}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no YAML ({reason}); write it like {EXAMPLE}") from None
    if given is None:
        raise UserError(f"{path} is empty; write it like {EXAMPLE}")
    try:
        config = Config.model_validate_json(json.dumps(renamed(json.loads(text))))
        check(config)
    except ValidationError as error:
        raise UserError(f"{path}: {mistake(error)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def renamed(given: Any) -> Any:
    """The same with the present names of the keys that once had others; raises `UserError` where one has both."""
    if not isinstance(given, dict):
        return given
    for former, present in FORMER.items():
        if former in given and present in given:
            raise UserError(f"{former} is the former name of {present}, which stands beside it; leave it out")
    return {FORMER.get(key, key): renamed(value) if key in STAGES else value for key, value in given.items()}


def check(config: Config) -> None:
    """Raise `UserError` where one section forbids what another says."""
    longest = config.corpus.context + 1
    if too_long := [length for length in config.stage_two.curriculum if not 1 < length <= longest]:
        raise UserError(
            f"stage_two.curriculum: lengths must be from 2 to context + 1 = {longest:,}, not {too_long[0]:,}"
        )
    first, second = config.stage_one.tokens if config.stage_one else 0, config.tokens
    if first > second and not config.allow_larger_stage_one:
        problem = f"stage one would read {first:,} tokens, more than stage two's {second:,}"
        raise UserError(f"{problem}; lower stage_one.steps or stage_one.batch, or write allow_larger_stage_one: true")


def mistake(error: ValidationError) -> str:
    """The first of the mistakes that pydantic found: an unknown key rather than the one that is missing for it."""
    worst_first = sorted(
        error.errors(include_url=False), key=lambda each: (each["type"] not in EXTRA, each["type"] in MISSING)
    )
    found = worst_first[0]
    kind, where = found["type"], [part for part in found["loc"] if part not in TAGS]
    path = ".".join(map(str, where)) or "the file"
    if kind in EXTRA:
        section = [*map(str, where[:-1])]
        meant = ".".join([*section, ELSEWHERE.get(str(where[-1]), "")])
        return str(unknown("key", path, (".".join([*section, name]) for name in names(where[:-1])), meant))
    if kind in MISSING:
        return f"{path} is missing; it has no default"
    if kind == "value_error":
        return f"{path}: {found['ctx']['error']}"
    wanted = WANTED.get(kind) or found["msg"].removeprefix("Input should be ")
    if kind in SECTION:
        wanted += " with keys " + ", ".join(names(where))
    return f"{path} must be {wanted}, not {found['input']!r:.60}"


FORMER = {
    "first": "stage_one",
    "second": "stage_two",
    "rate": "lr",
    "allow_larger_first": "allow_larger_stage_one",
}
STAGES = ("first", "second", "stage_one", "stage_two")  # the sections that have keys of former names
ELSEWHERE = {  # other libraries' names of our keys
    "learning_rate": "lr",
    "batch_size": "batch",
    "max_steps": "steps",
    "warmup_steps": "warmup",
    "max_grad_norm": "clip",
    "n_layer": "layers",
    "n_head": "heads",
    "n_embd": "width",
    "block_size": "context",
    "tokenizer": "tokeniser",
}
EXTRA = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_keyword_only_argument", "missing_argument")
SECTION = ("dataclass_type", "model_type")
TAGS = ("int", "float", "constrained-int")
WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a section",
    "dataclass_type": "a section",
    "model_type": "a section",
}


def names(where: Sequence[str]) -> list[str]:
    """The keys that may stand at that path of the configuration."""
    kind: Any = Config
    for part in where:
        hint = get_type_hints(kind)[part]
        kind = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
    return [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else list(Config.model_fields)
