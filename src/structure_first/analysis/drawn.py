"""Chapter 04: how much of what a front does to sums is in how the sums are drawn."""

from collections.abc import Iterable

import pandas as pd

from structure_first.analysis import combined, skills
from structure_first.analysis.stored import ended, ordered, over_seeds, untreated
from structure_first.evidence.statistics import final, told
from structure_first.experiments.skills import ARITHMETIC, DRAWS, THEIR_STACK, diagnostics

BASE = "random init"
ORDERED = combined.LABELS["eca", "mean rows"]
SHUFFLED = f"{ORDERED}, shuffled"
LABELS = {  # of what starts a diagnostic, by its front and what is carried over
    (BASE, ""): BASE,
    ("set", "attention"): combined.LABELS["set", "attention"],
    ("set", "mean rows"): "all of Set",
    ("eca", "mean rows"): ORDERED,
    ("stack", "mean rows"): "all of Stack",
    (THEIR_STACK, "mean rows"): "all of Stack, theirs",
    ("shuffled eca", "mean rows"): SHUFFLED,
}
PAPER = {task: dict(combined.PAPER[task]) for task in ARITHMETIC}  # accuracy at the paper's sizes
PAPER["reversed_addition"] |= {
    "all of Set": skills.PAPER["reversed_addition / set / mean rows"],
    "all of Stack, theirs": skills.PAPER["reversed_addition / stack / mean rows"],
}


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The models of `skills_drawn`: task, how its sums are `drawn`, start, seed, accuracy, and its gain over random
    initialisation of the same seed on sums drawn alike.
    """
    models = ended(rows).rename(columns={"swept": "drawn"})
    models["start"] = [LABELS[each] for each in zip(models["front"], models["carried"].fillna(""), strict=True)]
    keys = ["task", "drawn", "seed"]
    models["gain"] = models["accuracy"] - untreated(models, keys)["accuracy"]
    models = ordered(models, ["task", "drawn", "start"], [*ARITHMETIC, *DRAWS, *LABELS.values()])
    return models[["cell", *keys, "start", "accuracy", "gain"]].reset_index(drop=True)


def medians(models: pd.DataFrame) -> pd.DataFrame:
    """Median accuracy, a line for each task and start, a column for each way to draw; and what the paper states."""
    table = models.groupby(["task", "start", "drawn"], sort=False)["accuracy"].median().unstack("drawn")
    table["the paper, at its size"] = [PAPER[task].get(start) for task, start in table.index]
    return table.map(lambda share: "" if pd.isna(share) else f"{share:.1%}")


def worth(models: pd.DataFrame) -> pd.DataFrame:
    """What each start is worth over random init, in points, a line for each task and start, a column a way to draw."""
    fronts = models[models["start"] != BASE].assign(points=100 * models["gain"])
    return over_seeds(fronts, "points", ["task", "start"], "drawn", "{:+z.0f}")


def order(models: pd.DataFrame) -> str:
    """What the order of a source's tokens is worth on sums drawn as published: in its order less shuffled."""
    lines = []
    for task, here in models[models["drawn"] == list(DRAWS)[-1]].groupby("task", sort=False):
        ends = here.pivot(index="seed", columns="start", values="accuracy")
        lines.append(
            f"- **{str(task).replace('_', ' ')}**: after {ORDERED} {ends[ORDERED].median():.0%}, shuffled "
            f"{ends[SHUFFLED].median():.0%}, from random init {ends[BASE].median():.0%}. The order is worth "
            f"{told('{:+z.0f}', 100 * (ends[ORDERED] - ends[SHUFFLED]))} points."
        )
    return "\n".join(lines)


def by_size(every: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The `drawn` models of sums as published, of the rows of `every` scale from the smallest, with their `size` in
    words and how well stage one was `learnt`; only of tasks and starts that the largest has.
    """
    by_scale = []
    for rows in every:
        models, tasks = drawn(rows), diagnostics(rows["scale"].iloc[0])
        sizes = {task: f"{tasks[task].make().settings['digits']} digits" for task in ARITHMETIC}
        learnt = final(rows, "mastery").rename("learnt")
        models = models[models["drawn"] == list(DRAWS)[-1]].join(learnt, on=["cell", "seed"])
        by_scale.append(models.assign(size=models["task"].map(sizes)))
    return pd.concat(by_scale).merge(by_scale[-1][["task", "start"]].drop_duplicates())


def by_start(rows: pd.DataFrame, models: pd.DataFrame, task: str) -> pd.DataFrame:
    """Those of the rows that are of `models` of this task, their cells called by what they start from."""
    models = models[models["task"] == task]
    starts = dict(zip(models["cell"], models["start"], strict=True))
    return rows[rows["cell"].isin(starts)].assign(cell=lambda own: own["cell"].map(starts))


def at_each_size(models: pd.DataFrame) -> pd.DataFrame:
    """What each start ends at, at every size, and what it is worth, seed by seed; at the largest beside the paper."""
    keys, largest = ["task", "size", "start"], models.groupby("task")["size"].last()
    starts = models.assign(points=100 * models["gain"]).groupby(keys, sort=False)
    names = {"accuracy": "ends at", "learnt": "stage one learnt"}
    table = starts[list(names)].median().rename(columns=names)
    table["the paper"] = [PAPER[task].get(start) if at == largest[task] else None for task, at, start in table.index]
    table = table.map("{:.0%}".format, na_action="ignore").fillna("")
    worth = starts["points"].apply(lambda seeds: told("{:+z.0f}", seeds))
    return table.assign(**{"worth, points": worth, "seeds": starts.size()})
