"""Every experiment by name. A new one is a file beside this one and a line here."""

from importlib import import_module

from structure_first.runs.recipe import Experiment

MODULES = (
    "two_stages",
    "haystack",
    "skills",
    "additive",
    "substitutive",
    "published",
    "published_tuning",
    "axes",
    "downstream",
)
EXPERIMENTS = {
    each.name: each
    for module in MODULES
    for each in vars(import_module(f"structure_first.experiments.{module}")).values()
    if isinstance(each, Experiment)
}
