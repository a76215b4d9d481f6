"""Every setting of every experiment, read off its recipes, at each scale beside the paper's."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from structure_first.data.registry import defaults
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.scales import SCALES

PARTS = {
    "stage one": "stage_one",
    "stage two": "stage_two",
    "model": "body",
    "model in stage one, where it begins otherwise": "body_stage_one",
}
SHOWN = 4  # values of a setting; of more their range
SETTINGS = {  # a recipe's fields in the words of the text; what no reader asks for is left out
    "source": "data",
    "settings": "of the data",
    "steps": "updates",
    "batch": "sequences an update",
    "lr": "learning rate",
    "warmup": "updates of warm-up",
    "schedule": "schedule",
    "floor": "rate at the end, as a share",
    "weight_decay": "weight decay",
    "clip": "largest gradient norm",
    "mastery": "stops at an accuracy of",
    "tied": "head tied to the embeddings",
    "dropout": "dropout",
    "layers": "layers",
    "heads": "heads",
    "width": "width",
    "init": "standard deviation of first weights",
    "init_embedding": "of first embeddings, where it is another",
}


def methods(experiment: Experiment) -> pd.DataFrame:
    """A line for each setting, a column for each scale but `smoke`; several values are those of several cells."""
    recipes = {scale: experiment.recipes(scale).values() for scale in SCALES if scale != "smoke"}
    columns = {scale: {"cells": f"{len(each)}"} | values(each) for scale, each in recipes.items() if each}
    known = set().union(*columns.values())
    lines = ["cells", *(line for part in PARTS for line in (f"{part}: {each}" for each in SETTINGS.values()))]
    table = {line: [column.get(line, "") for column in columns.values()] for line in lines if line in known}
    return pd.DataFrame.from_dict(table, orient="index", columns=list(columns))


def values(recipes: Iterable[Recipe]) -> dict[str, str]:
    """Each setting with all the values that the recipes have for it, in words."""
    by_setting: dict[str, dict[Any, None]] = {}
    for recipe in recipes:
        for part, of in PARTS.items():
            for name, value in told(getattr(recipe, of)):
                if name in SETTINGS:
                    by_setting.setdefault(f"{part}: {SETTINGS[name]}", {})[value] = None
    return {line: worded(list(each)) for line, each in by_setting.items()}


def told(part: Recipe | Phase | Body | None) -> Iterator[tuple[str, Any]]:
    """The settings of a part of a recipe, its data's defaults among them; of a stage one that is a recipe itself,
    those of its stages.
    """
    if isinstance(part, Recipe):
        yield from told(part.stage_one)
        yield from told(part.stage_two)
    elif isinstance(part, Phase):
        known = {} if "/" in part.source else defaults(part.source)
        yield from flat(asdict(part) | {"settings": {**known, **part.settings}})
    elif part:
        yield from flat(asdict(part))


def flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name == "settings":
            yield name, ", ".join(f"{key} {each}" for key, each in value.items() if each is not None)
        elif isinstance(value, Mapping):
            yield from flat(value)
        else:
            yield name, value


def worded(several: list[Any]) -> str:
    """The values, or, where they are many, their range or how many they are."""
    words = [said(value) for value in several]
    if len(several) <= SHOWN:
        return "; ".join(words)
    numbers = [value for value in several if isinstance(value, int | float)]
    if len(numbers) == len(several):
        return f"{said(min(numbers))} to {said(max(numbers))}"
    return f"{'; '.join(words[:SHOWN])} and {len(several) - SHOWN} more"


def said(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
