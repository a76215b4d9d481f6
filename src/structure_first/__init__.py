"""Structure First: procedural pretraining, from the generators to the evidence."""

__version__ = "0.22.0"
