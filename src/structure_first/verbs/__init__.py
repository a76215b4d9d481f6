"""The verbs of `structure-first`: their options, what each imports when it runs, and what it prints."""

# each adds its verbs to the application
from structure_first.verbs import book, data, doctor, models, runs, training  # noqa: F401
from structure_first.verbs.common import app, usage

__all__ = ["app", "usage"]
