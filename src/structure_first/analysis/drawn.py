"""Chapter 04: how much of what a front does to sums is in how the sums are drawn."""

import pandas as pd

from structure_first.analysis.combined import models
from structure_first.evidence.statistics import interval
from structure_first.experiments.skills import ARITHMETIC, DRAWS, THEIR_STACK

BASE, PUBLISHED = "random init", "as published"
LABELS = {  # of what starts a diagnostic, by its front and what is carried over
    (BASE, ""): BASE,
    ("set", "attention"): "Set's attention",
    ("set", "mean rows"): "all of Set",
    ("eca", "mean rows"): "all of rule 110",
    ("stack", "mean rows"): "all of Stack",
    (THEIR_STACK, "mean rows"): "all of Stack, theirs",
}
PAPER = {  # Jiang et al. 2026: accuracy at the paper's sizes, of those that it states
    "addition": {BASE: 0.591, "Set's attention": 0.811, "all of rule 110": 0.696},
    "reversed_addition": {
        BASE: 0.764,
        "Set's attention": 0.544,
        "all of Set": 0.446,
        "all of rule 110": 0.910,
        "all of Stack, theirs": 0.349,
    },
}


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The models of `skills_drawn`: task, how its sums are `drawn`, start, seed, accuracy, and its gain over random
    initialisation of the same seed on sums drawn alike.
    """
    found = models(rows).rename(columns={"swept": "drawn"})
    found["start"] = [LABELS[each] for each in zip(found["front"], found["carried"].fillna(""), strict=True)]
    keys = ["task", "drawn", "seed"]
    base = found.loc[found["start"] == BASE, [*keys, "accuracy"]].rename(columns={"accuracy": "base"})
    found = found.merge(base, on=keys)
    found["gain"] = found["accuracy"] - found["base"]
    order = [*ARITHMETIC, *DRAWS, *LABELS.values()]
    found = found.sort_values(["task", "drawn", "start"], key=lambda column: column.map(order.index), kind="stable")
    return found[[*keys, "start", "accuracy", "gain"]].reset_index(drop=True)


def medians(found: pd.DataFrame) -> pd.DataFrame:
    """Median accuracy, a line for each task and start, a column for each way to draw; and what the paper states."""
    table = found.groupby(["task", "start", "drawn"], sort=False)["accuracy"].median().unstack("drawn")
    stated = [PAPER[task].get(start) for task, start in table.index]
    table["the paper, at its size"] = stated
    return table.map(lambda share: "" if pd.isna(share) else f"{share:.1%}")


def said(found: pd.DataFrame) -> str:
    """What each way to draw is to random initialisation, and what the fronts are worth in the first and in the last."""
    lines = []
    for task, here in found.groupby("task", sort=False):
        bare = here[here["start"] == BASE].groupby("drawn", sort=False)["accuracy"].median()
        lines.append(
            f"- **{str(task).replace('_', ' ')}**: random init ends at "
            + ", ".join(f"{accuracy:.0%} *{draw}*" for draw, accuracy in bare.items())
            + f" (the paper, at its size: {PAPER[str(task)][BASE]:.0%})."
        )
        for draw in (bare.index[0], bare.index[-1]):
            fronts = here[(here["drawn"] == draw) & (here["start"] != BASE)].groupby("start", sort=False)["gain"]
            worth = [f"{start} {{:+.0%}} ({{:+.0%}} to {{:+.0%}})".format(*interval(gain)) for start, gain in fronts]
            lines.append(f"  - *{draw}*, the fronts are worth: {', '.join(worth)}.")
    return "\n".join(lines)
