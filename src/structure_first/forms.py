"""The form that JSON from a file must have, declared as plain data and checked once, before anything of it is used.

A form is a type (`float` takes every finite number, `object` anything), a `range` of whole numbers, a constant, a tuple
of forms of which one has to fit, a list of the one form that all items have or of as many as there are items, or a
dictionary. There a key that ends in ? may be left out, and other keys may stand where `...` gives their form.
"""

from math import inf
from typing import Any

from structure_first.errors import unknown

COUNT = range(1 << 63)
NAMES = {bool: "true or false", float: "a number", str: "text", dict: "an object", list: "a list"}


def of_form(value: Any, form: Any, where: str = "") -> Any:
    """The value, if it has that form; raises `ValueError`, one line that says where it has not, and what it must be."""
    fitting = next((each for each in (form if isinstance(form, tuple) else [form]) if _is(value, each)), form)
    if not _is(value, fitting):
        raise ValueError(f"{where or 'it'} must be {_told(form)}, not {value!r:.60}")
    if isinstance(fitting, dict):
        others, named = fitting.get(...), {key: each for key, each in fitting.items() if key is not ...}
        known = {key.removesuffix("?"): each for key, each in named.items()}
        if missing := [key for key in named if not key.endswith("?") and key not in value]:
            raise ValueError(f"{where}.{missing[0]} is missing".lstrip("."))
        for key, each in value.items():
            if key not in known and others is None:
                raise ValueError(f"{where}: {unknown('key', key[:60], known)}".lstrip(": "))
            place = f"{where}.{key}".lstrip(".") if key in known else f"{where}[{key!r:.60}]"
            of_form(each, known.get(key, others), place)
    elif isinstance(fitting, list):
        for number, each in enumerate(value):
            of_form(each, fitting[number % len(fitting)], f"{where}[{number}]")
    return value


def _is(value: Any, form: Any) -> bool:
    """Whether a value has a form, apart from what it holds. In Python, true is a whole number: here it is none."""
    if isinstance(form, range):
        return type(value) is int and value in form
    if isinstance(form, list):
        return isinstance(value, list) and len(form) in (1, len(value))
    if isinstance(form, dict):
        return isinstance(value, dict)
    if form is float:
        return type(value) in (int, float) and -inf < value < inf
    if form is str:  # half a letter cannot be printed
        return isinstance(value, str) and value.encode(errors="replace").decode() == value
    if isinstance(form, type):
        return isinstance(value, form)
    return type(value) is type(form) and value == form


def _told(form: Any) -> str:
    if isinstance(form, tuple):
        return " or ".join(map(_told, form))
    if isinstance(form, range):
        return f"a whole number from {form[0]:,} to {form[-1]:,}"
    if isinstance(form, list):
        return "a list" if len(form) == 1 else f"a list of {len(form)}"
    if isinstance(form, dict):
        return NAMES[dict]
    return "null" if form is None else NAMES.get(form) or repr(form)
