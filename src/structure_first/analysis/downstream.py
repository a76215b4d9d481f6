"""Chapter 06: whether what a front gave to a text is still there once the model was trained on, on another."""

import pandas as pd

from structure_first.analysis.stored import ended, over_seeds
from structure_first.analysis.text import gains, labels
from structure_first.evidence.statistics import final
from structure_first.runs.jobs import Replica
from structure_first.runs.recipe import Experiment

WHEN = ("first text", "second text")


def lasting(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """A line for each model and each of `WHEN`: which text follows which (`task`), what was in front (`label`), seed,
    final loss, and the gain over random init of the same seed; models that had no text before have only the second.
    """
    recipes = experiment.recipes(rows["scale"].iloc[0])
    before = {cell: one.cell for cell, recipe in recipes.items() if (one := Replica(cell, recipe, 0).before)}
    last, stage_one = ended(rows, "loss"), final(rows, "loss", stage=1)
    start = pd.MultiIndex.from_arrays([last["cell"].map(before), last["seed"]])
    first = last.assign(loss=stage_one.reindex(start).to_numpy()).dropna(subset="loss")
    ends = pd.concat({WHEN[0]: first, WHEN[1]: last}, names=["when"]).reset_index("when").reset_index(drop=True)
    ends["label"] = labels(ends, ", ")
    ends["gain"] = gains(ends, ["task", "when", "seed"])
    return ends[["task", "label", "seed", "when", "loss", "gain"]]


def worth(ends: pd.DataFrame) -> pd.DataFrame:
    """What each front is worth before and after, a line for each pair of texts and front."""
    fronts = ends[ends["label"] != "random init"]
    return over_seeds(fronts, "gain", ["task", "label"], "when").rename_axis(["texts", "in front"])
