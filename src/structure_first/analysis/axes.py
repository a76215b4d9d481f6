"""Chapter 05: where structure begins to count: what a front is worth along width, context and length of the text."""

from pathlib import Path

import pandas as pd

from structure_first.analysis.published import LEAD, TOLD, over_random_init, published
from structure_first.analysis.stored import RESULTS, ended, of_today, ordered, stored, with_factors
from structure_first.analysis.text import gains, labels
from structure_first.evidence.statistics import final, told
from structure_first.experiments import axes
from structure_first.experiments.as_published import Choice, size
from structure_first.experiments.published import EXPERIMENT, RUNGS
from structure_first.runs.recipe import Experiment

STARTS = {"as published": axes.EXPERIMENT, "wider start": axes.TUNED}
SET, TWIN = TOLD[:2]
LABELS = ("random init", SET, TWIN)
UNITS = {"width": "width", "context": "context, tokens", "updates": "updates"}
POINT, MODEL = ["start", "swept", "amount"], ["cell", "seed"]


def along(results: Path = RESULTS) -> pd.DataFrame:
    """Where random init, *set* and its twin on code end by `start`, axis (`swept`) and `amount`, and their `gain` over
    random init of the same seed; what `published` has at that scale stands on every axis of which more has run. Only
    points at which all three ran, and of an axis only the seeds that ran at all of its points.
    """
    scale = stored(axes.EXPERIMENT, results)["scale"].iloc[0]
    middle = models(EXPERIMENT, scale, results).query("task == @axes.CORPUS and share.isna()")
    better = Choice().of(size(scale)).corpora[axes.CORPUS].stage.lr
    of_ladder = middle[middle["swept"].eq(RUNGS[2]) & middle["amount"].eq(better)]
    own, parts = axes.middle(scale), []
    for (start, experiment), there in zip(STARTS.items(), (published(middle), of_ladder), strict=True):
        of_text = there.assign(swept="updates", amount=there["updates"])  # a share of the text is fewer updates
        whole = there[there["text"] == 1]
        here = [whole.assign(swept=axis, amount=own[axis]) for axis in own if axis != "updates"]
        parts += [each.assign(start=start) for each in (models(experiment, scale, results), *here, of_text)]
    every = pd.concat(parts, ignore_index=True)
    every["label"] = labels(every, ", ")
    every = every[every["label"].isin(LABELS)]
    every = every[every.groupby(POINT)["label"].transform("nunique") == len(LABELS)]
    every = every[every.groupby(POINT[:2])["amount"].transform("nunique") > 1]
    ran = every.groupby([*POINT[:2], "seed"])["cell"].transform("size")
    every = every[ran == ran.groupby([every["start"], every["swept"]]).transform("max")]
    every = ordered(every, "label", LABELS).sort_values("amount", kind="stable")
    every = ordered(ordered(every, "swept", UNITS), "start", STARTS).reset_index(drop=True)
    return every.assign(gain=gains(every, [*POINT, "seed"]))


def models(experiment: Experiment, scale: str, results: Path) -> pd.DataFrame:
    """The last loss of every model of a scale, its cell's factors, its updates, and how well stage one was `learnt`."""
    rows = of_today(experiment, results).get(scale)
    if rows is None:
        return pd.DataFrame()
    last = ended(with_factors(rows, experiment), "loss").join(final(rows, "mastery").rename("learnt"), on=MODEL)
    updates = {cell: recipe.last.stage.steps for cell, recipe in experiment.recipes(scale).items()}
    return last.assign(scale=scale, updates=last["cell"].map(updates))


def worth(every: pd.DataFrame) -> pd.DataFrame:
    """At each point where random init ends, what *set* and its twin are worth there, how far the one is ahead of the
    other, and how well *set* was learnt.
    """
    every = every.astype({"amount": int})
    table = over_random_init(every, POINT)
    losses = every.pivot(index=[*POINT, "seed"], columns="label", values="loss")
    ahead = (losses[TWIN] - losses[SET]).dropna().groupby(POINT).apply(lambda seeds: told("{:+z.3f}", seeds))
    table.insert(3, LEAD, ahead)
    learnt = every[every["label"] == SET].groupby(POINT)["learnt"].median().map("{:.0%}".format)
    return table.join(learnt.rename("set learnt to")).rename_axis(index={"swept": "axis"})
