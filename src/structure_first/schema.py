"""What JSON from a file must be like: a schema, declared as plain data, checked once before anything of it is used.

A schema is a type (`float` takes every finite number, `object` anything), a `range` of whole numbers, a constant, a
tuple of schemas of which one has to fit, a list of the one schema that all items have or of as many as there are items,
or a dictionary. There a key that ends in ? may be left out, and other keys may stand where `...` gives their schema.
"""

from math import inf
from typing import Any

from structure_first.errors import unknown

COUNT = range(1 << 63)
NAMES = {bool: "true or false", float: "a number", str: "text", dict: "an object", list: "a list"}


def validated(value: Any, schema: Any, path: str = "") -> Any:
    """The value, if it fits the schema; raises `ValueError`, one line that says where it does not and what must be."""
    alternatives = schema if isinstance(schema, tuple) else (schema,)
    fitting = next((each for each in alternatives if _matches(value, each)), schema)
    if not _matches(value, fitting):
        raise ValueError(f"{path or 'it'} must be {_described(schema)}, not {value!r:.60}")
    if isinstance(fitting, dict):
        others, named = fitting.get(...), {key: each for key, each in fitting.items() if key is not ...}
        known = {key.removesuffix("?"): each for key, each in named.items()}
        if missing := [key for key in named if not key.endswith("?") and key not in value]:
            raise ValueError(f"{path}.{missing[0]} is missing".lstrip("."))
        for key, each in value.items():
            if key not in known and others is None:
                raise ValueError(f"{path}: {unknown('key', key[:60], known)}".lstrip(": "))
            inner_path = f"{path}.{key}".lstrip(".") if key in known else f"{path}[{key!r:.60}]"
            validated(each, known.get(key, others), inner_path)
    elif isinstance(fitting, list):
        for number, each in enumerate(value):
            validated(each, fitting[number % len(fitting)], f"{path}[{number}]")
    return value


def _matches(value: Any, schema: Any) -> bool:
    """Whether a value fits a schema, apart from what it holds. In Python, true is a whole number: here it is none."""
    if isinstance(schema, range):
        return type(value) is int and value in schema
    if isinstance(schema, list):
        return isinstance(value, list) and len(schema) in (1, len(value))
    if isinstance(schema, dict):
        return isinstance(value, dict)
    if schema is float:
        return type(value) in (int, float) and -inf < value < inf
    if schema is str:  # half a letter cannot be printed
        return isinstance(value, str) and value.encode(errors="replace").decode() == value
    if isinstance(schema, type):
        return isinstance(value, schema)
    return type(value) is type(schema) and value == schema


def _described(schema: Any) -> str:
    if isinstance(schema, tuple):
        return " or ".join(map(_described, schema))
    if isinstance(schema, range):
        return f"a whole number from {schema[0]:,} to {schema[-1]:,}"
    if isinstance(schema, list):
        return "a list" if len(schema) == 1 else f"a list of {len(schema)}"
    if isinstance(schema, dict):
        return NAMES[dict]
    return "null" if schema is None else NAMES.get(schema) or repr(schema)
