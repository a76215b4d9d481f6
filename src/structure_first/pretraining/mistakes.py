"""A mistake in a configuration as one line: where it is, what may stand there, and what was probably meant."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from inspect import get_annotations
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from structure_first.errors import UserError, unknown

FORMER = {"first": "stage_one", "second": "stage_two", "rate": "lr", "allow_larger_first": "allow_larger_stage_one"}
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


def renamed(given: Any) -> Any:
    """The same with the present names of the keys that once had others; raises `UserError` where one has both."""
    if not isinstance(given, dict):
        return given
    for former, present in FORMER.items():
        if former in given and present in given:
            raise UserError(f"{former} is the former name of {present}, which stands beside it; leave it out")
    return {FORMER.get(key, key): renamed(value) if key in STAGES else value for key, value in given.items()}


def mistake(error: ValidationError, config: type[BaseModel]) -> str:
    """The first of the mistakes that pydantic found: an unknown key rather than the one that is missing for it."""
    worst = min(error.errors(include_url=False), key=lambda each: (each["type"] not in EXTRA, each["type"] in MISSING))
    kind, key_path = worst["type"], [str(part) for part in worst["loc"] if part not in TAGS]
    path = ".".join(key_path) or "the file"
    if kind in EXTRA:
        section = key_path[:-1]
        meant = ".".join([*section, ELSEWHERE.get(key_path[-1], "")])
        return str(unknown("key", path, (".".join([*section, name]) for name in names(config, section)), meant))
    if kind in MISSING:
        return f"{path} is missing; it has no default"
    if kind == "value_error":
        return f"{path}: {worst['ctx']['error']}"
    wanted = WANTED.get(kind) or worst["msg"].removeprefix("Input should be ")
    if kind in SECTION:
        wanted += " with keys " + ", ".join(names(config, key_path))
    return f"{path} must be {wanted}, not {worst['input']!r:.60}"


def names(config: type[BaseModel], key_path: Sequence[str] = ()) -> list[str]:
    """The keys that may stand at that path of the configuration; those that a section names itself come first."""
    kind: Any = config
    for part in key_path:
        hint = get_type_hints(kind)[part]
        kind = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return list(config.model_fields)
    order = [name for each in kind.__mro__ for name in get_annotations(each)]
    return sorted((each.name for each in fields(kind) if each.init), key=order.index)
