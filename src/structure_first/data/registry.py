"""Every source by name. A new one is a function that draws it and a line here."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real

import torch
from torch import Tensor

from structure_first.data import controls, diagnostics
from structure_first.data.answers import answers
from structure_first.data.batch import Batch, Source
from structure_first.data.corpora import cached
from structure_first.data.mixtures import mixture
from structure_first.data.procedural import automata, languages, memory, transforms
from structure_first.errors import UserError, check_known, check_range, unknown


@dataclass(frozen=True)
class Rule:
    """A line of the registry. The functions take the settings by name, the ones they do not use included."""

    draw: Callable[..., Batch]  #: `(count, generator, *, settings)`: its signature holds the settings and defaults
    teaches: str
    vocab: Callable[..., int]
    forbids: Callable[..., str | None] = lambda **_: None  #: what is wrong with settings that LIMITS allows one by one
    window: int | None = None  #: how many tokens may bear loss, where they do not reach from the same place to the end
    determined: Callable[..., Tensor] | None = None  #: `(tokens, *, settings)`: which follow from those before
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)  #: of settings of its own

    @property
    def defaults(self) -> dict[str, int | float | None]:
        """Every setting and its default."""
        parameters = inspect.signature(self.draw).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


LIMITS = {  # of settings that several rules have; one that stands nowhere is a whole number from 0, or any number
    "length": (1, 1 << 16),
    "vocab": (2, 1 << 20),
    "k": (1, 1 << 16),
    "p": (0, 1),
    "depth": (1, (1 << 15) - 1),  # heights are kept in 16 bits
    "width": (3, 1 << 15),
    "digits": (1, 1000),
    "leading_zeros": (0, 1),
    "shifted": (0, 1),
}
CORPUS = {"context": (1, (1 << 16) - 1), "tokens": (1, 10**13)}  # of a packed one


def marked(vocab: int, **_) -> int:
    """The vocabulary of a question and its answer: `vocab` of content, then the separator and the pad."""
    return vocab + 2


def fixed(size: int) -> Callable[..., int]:
    return lambda **_: size


def brackets(k: int, **_) -> int:
    return 2 * k


def odd(length: int, **_) -> str | None:
    return f"length must be even, not {length}" if length % 2 else None


def single(length: int, **_) -> str | None:
    return f"length must be 2 or more, not {length}" if length < 2 else None


def deeper_than_alphabet(length: int, vocab: int, **_) -> str | None:
    highest = length if length < 3 else length - 1  # the last of three operations or more is a pop
    if highest < vocab:
        return None
    problem = f"{length} operations can stack {highest} different tokens but vocab {vocab} has {vocab - 1}"
    return f"{problem}; vocab must be {highest + 1} or more, or length {vocab if vocab > 2 else 1} or less"


def broken_states(length: int, width: int, **_) -> str | None:
    if length >= 2 * width and length % width == 0:
        return None
    return f"length must be a multiple of width {width}, {2 * width} or more, not {length}"


def unpatched(width: int, states: int, patch: int, **_) -> str | None:
    if width % patch:
        return f"width must be a multiple of patch {patch}, not {width}"
    if (kinds := states ** (patch * patch)) > 1 << 20:
        return f"patches of {patch} x {patch} cells of {states} states are {kinds:,} tokens, more than {1 << 20:,}"
    return None


PROCEDURAL = {
    "identity": Rule(transforms.identity, "to copy a sequence", marked),
    "reverse": Rule(transforms.reverse, "to copy a sequence backwards", marked),
    "sort": Rule(transforms.sort, "to order a sequence by its tokens", marked),
    "set": Rule(transforms.set, "to tell what was there before from what is new", marked),
    "union": Rule(transforms.union, "to merge two sequences without repeats", marked, odd),
    "delete": Rule(
        transforms.delete, "to copy a sequence and leave one token out", marked, single, limits={"absent": (0, 1)}
    ),
    "stack": Rule(
        memory.stack,
        "to keep track of a last-in, first-out memory",
        marked,
        deeper_than_alphabet,
        limits={"forced": (1, 1 << 16)},
    ),
    "dyck": Rule(
        languages.dyck,
        "to nest: find the innermost bracket still open",
        brackets,
        odd,
        determined=lambda tokens, k, **_: tokens >= k,
    ),
    "dyck_shuffle": Rule(
        languages.dyck_shuffle,
        "to keep many dependencies open that cross",
        brackets,
        odd,
        determined=languages.without_choice,
    ),
    "eca": Rule(
        automata.eca, "to apply a local rule to a whole state", fixed(2), broken_states, limits={"rule": (0, 255)}
    ),
    "nca": Rule(
        automata.nca,
        "to find out a local rule, and to apply it",
        lambda states, patch, **_: states ** (patch * patch) + 2,  # and a start and an end
        unpatched,
        limits={"grids": (2, 1 << 12), "width": (2, 64), "states": (2, 16), "patch": (1, 8), "least": (0, 1)},
    ),
}

DIAGNOSTICS = {
    "haystack": Rule(
        diagnostics.haystack,
        "context recall: the value of the queried key",
        fixed(256),
        window=1,
        limits={"pairs": (1, diagnostics.KEYS)},
    ),
    "addition": Rule(diagnostics.addition, "addition, carries from the far end", fixed(31)),
    "reversed_addition": Rule(diagnostics.reversed_addition, "addition, carries as they come", fixed(31)),
    "multiplication": Rule(diagnostics.multiplication, "long multiplication", fixed(31)),
    "sorting": Rule(diagnostics.sorting, "to order a sequence by its tokens", marked),
}

CONTROLS = {"random": Rule(controls.random, "nothing: no token tells of another", lambda vocab, **_: vocab, single)}

RULES = PROCEDURAL | DIAGNOSTICS | CONTROLS
ANSWERS = "answers:"  # how the name of a corpus begins of which only answers bear loss
CHANGES = {"shuffled": controls.shuffled}  # `shuffled:dyck` is the source dyck, changed


def source(name: str, **given: int | float | None) -> Source:
    """The source of that name; a setting left out or None has its default.

    `shuffled:dyck` is the source dyck, changed; `set+dyck` is a mixture, each member with the settings that it takes;
    `code/bytes` is the corpus code in tokens of the tokeniser bytes, with the settings `context` and `tokens`;
    `answers:math/characters` lets only answers bear loss. Raises `UserError` for a name or a setting that there is
    not, and for a value that it cannot have.
    """
    corpus, slash, tokeniser = name.partition("/")
    if slash:
        if corpus.startswith(ANSWERS) and tokeniser != "characters":  # said before anything is packed
            raise UserError(f"{name} is no corpus in characters; write it as {corpus}/characters")
        packed: Callable[..., Source] = cached.corpus  # by name, as the rules take theirs
        windows = packed(corpus.removeprefix(ANSWERS), tokeniser, **corpus_settings(name, given))
        return answers(windows) if corpus.startswith(ANSWERS) else windows
    change, changed, base = name.partition(":")
    if changed:
        check_known("control", change, CHANGES)
        return CHANGES[change](source(base, **given))
    if "+" in name:
        return mixed(name.split("+"), given)
    rule = rule_of(name)
    settings = checked_settings(name, rule, given)

    def draw(count: int, generator: torch.Generator) -> Batch:
        if count < 1:
            raise UserError(f"{name}: the number of sequences must be 1 or more, not {count}")
        return rule.draw(count, generator, **settings)

    example = draw(1, torch.Generator().manual_seed(0))
    return Source(
        name=name,
        settings=settings,
        vocab=rule.vocab(**settings),
        length=example.tokens.shape[1],
        window=rule.window or example.tokens.shape[1] - int(example.loss_mask[0].byte().argmax()),
        teaches=rule.teaches,
        draw=draw,
        determined=rule.determined and partial(rule.determined, **settings),
        with_settings=lambda **changes: source(name, **(settings | changes)),
    )


def mixed(names: Sequence[str], settings: Mapping[str, int | float | None]) -> Source:
    """The mixture of the sources of those names."""
    name = "+".join(names)
    known = defaults(name)
    for setting in settings:
        check_known(f"setting of {name}", setting, known)
    own = [{key: settings[key] for key in settings.keys() & defaults(name)} for name in names]
    return mixture([source(name, **given) for name, given in zip(names, own, strict=True)])


def defaults(name: str) -> dict[str, int | float | None]:
    """Every setting and its default, of a source by any of its names; a mixture has those of its members."""
    return {key: value for member in name.split("+") for key, value in rule_of(member).defaults.items()}


def describe(name: str) -> str:
    """A source's rule in one sentence."""
    change, changed, base = name.partition(":")
    if changed:
        check_known("control", change, CHANGES)
        return f"{describe(base)} Then {change}: {first_paragraph(CHANGES[change])}"
    if "+" in name:
        return "Each sequence is of one of these. " + " ".join(describe(each) for each in name.split("+"))
    return first_paragraph(rule_of(name).draw)


def first_paragraph(function: Callable) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())


def rule_of(name: str) -> Rule:
    """The registry's line for a source's name, without what changes it."""
    base = name.rpartition(":")[2]
    if base not in RULES:
        raise unknown("source", base, [*RULES, *(f"{change}:NAME" for change in CHANGES)])
    return RULES[base]


def corpus_settings(name: str, given: Mapping[str, int | float | None]) -> dict[str, int | float]:
    """The settings of a packed corpus, which have no defaults; illegal ones say why."""
    for setting in given:
        check_known(f"setting of {name}", setting, CORPUS)
    return {setting: number(f"{name}: {setting}", given.get(setting), *limits) for setting, limits in CORPUS.items()}


def checked_settings(name: str, rule: Rule, given: Mapping[str, int | float | None]) -> dict[str, int | float]:
    """All settings of a source, the defaults filled in and those that stay None left out; illegal ones say why."""
    defaults = rule.defaults
    for setting in given:
        check_known(f"setting of {name}", setting, defaults)
    filled = defaults | {setting: value for setting, value in given.items() if value is not None}
    settings: dict[str, int | float] = {}
    for setting, value in filled.items():
        if value is not None:
            real = isinstance(defaults[setting], float)
            limits = {**LIMITS, **rule.limits}.get(setting, (-math.inf, math.inf) if real else (0, 1 << 20))
            settings[setting] = number(f"{name}: {setting}", value, *limits, real=real)
    if complaint := rule.forbids(**settings):
        raise UserError(f"{name}: {complaint}")
    return settings


def number(what: str, value: float | None, low: float, high: float, real: bool = False) -> int | float:
    """The value as Python's own number, whole unless it may be `real`; raises `UserError` where it is out of range."""
    kind, wanted = (Real, "a number") if real else (Integral, "a whole number")
    if isinstance(value, bool) or not isinstance(value, kind):
        raise UserError(f"{what} must be {wanted} from {low:,} to {high:,}, not {value!r}")
    check_range(what, value, low, high)  # before a whole number too large for a float is made one
    return float(value) if real else int(value)
