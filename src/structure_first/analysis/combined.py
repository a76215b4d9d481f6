"""Chapters 03 and 04: what goes across apart from the rule for new rows, and stage ones that are composed."""

import pandas as pd

from structure_first.analysis.haystack import counted, has_jumped
from structure_first.analysis.stored import ended, ordered
from structure_first.experiments.haystack import ACROSS, ROWS

BOTH = "both, composed"
LABELS = {  # of what starts a diagnostic, by its front and what is carried over
    ("random init", ""): "random init",
    ("set", "attention"): "Set's attention",
    ("eca", "mlp"): "rule 110's MLPs",
    ("eca", "mean rows"): "all of rule 110",
    ("set + eca", "composed"): BOTH,
}
LEFT = {  # what stage two finds of stage one, by the metric that tells
    "mastery": "learnt",
    "rms rows": "rms of its rows",
    "rms mean row": "of their mean",
    "rms positions": "of its positions",
}
# Jiang et al. 2026 (combined structures): accuracy at the paper's sizes; of MLPs alone none.
PAPER = {
    "haystack": {"random init": 0.113, "Set's attention": 0.889, "all of rule 110": 0.105, BOTH: 0.944},
    "addition": {"random init": 0.591, "Set's attention": 0.811, "all of rule 110": 0.696, BOTH: 0.803},
    "reversed_addition": {"random init": 0.764, "Set's attention": 0.544, "all of rule 110": 0.910, BOTH: 0.829},
    "sorting": {"random init": 0.827, "Set's attention": 0.981, "all of rule 110": 0.769, BOTH: 0.994},
}
TASKS = tuple(PAPER)


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The models of `haystack_rules`: source, what goes across, what the new rows are, accuracy, whether it jumped."""
    ends = ended(rows).join(has_jumped(rows).rename("jumped"), on=["cell", "seed"])
    names = {"front": "source", "carried": "across", "swept": "rows"}
    ends = ends[ends["front"] != "random init"].rename(columns=names)
    return ordered(ends, ["source", "rows", "across"], [*sorted(set(ends["source"])), *ROWS.values(), *ACROSS])


def apart_said(ends: pd.DataFrame) -> str:
    """Which of the two factors tells, in words: only of models that have a partner on either side."""
    whole = ends[ends["across"] != "nothing"]
    across, rows = (counted(whole.groupby(by, sort=False)["jumped"]) for by in ("across", "rows"))
    return f"Seeds that jumped, by what goes across: {across}; by what the new rows are: {rows}."


def left(rows: pd.DataFrame) -> pd.DataFrame:
    """What each source's stage ones left, medians over seeds: held-out accuracy, and the root mean squares of their
    embedding rows about the mean row, of that row, and of their positions.
    """
    columns = {name: ended(rows, metric).groupby("front")[metric].median() for metric, name in LEFT.items()}
    table = pd.DataFrame(columns).rename_axis("source")
    return table.map("{:.3f}".format).assign(learnt=table["learnt"].map("{:.0%}".format))


def jumps(ends: pd.DataFrame) -> pd.DataFrame:
    """A line for each source and each thing that goes across, a column for each rule: seeds that jumped, the median."""

    def told(cell: pd.DataFrame) -> str:
        return f"{cell['jumped'].sum()} of {len(cell)} (median {cell['accuracy'].median():.0%})"

    keys = ["source", "across", "rows"]
    table = ends.groupby(keys, sort=False)[["jumped", "accuracy"]].apply(told).unstack("rows")
    return table.reindex(columns=[name for name in ROWS.values() if name in table]).fillna("")


def composed(rows: pd.DataFrame) -> pd.DataFrame:
    """The models of `skills` that start from Set's attention, rule 110's MLPs, or both: task, start, seed, accuracy."""
    ends = ended(rows)
    ends["start"] = [LABELS.get(each) for each in zip(ends["front"], ends["carried"].fillna(""), strict=True)]
    ends = ends[ends["task"].isin(TASKS)].dropna(subset="start")
    return ordered(ends, ["task", "start"], [*TASKS, *LABELS.values()])


def medians(ends: pd.DataFrame) -> pd.DataFrame:
    """Median accuracy: a line for each start, a column for each task."""
    return ends.groupby(["start", "task"], sort=False)["accuracy"].median().unstack("task")[list(TASKS)]


def beside_the_paper(ends: pd.DataFrame) -> pd.DataFrame:
    """Median accuracy of each start in each task, and their mean, here and in the paper."""
    here = medians(ends)
    paper = pd.DataFrame(PAPER).reindex(here.index)
    lines = {}
    for start in here.index:
        for where, accuracy in (("here", here.loc[start]), ("paper", paper.loc[start])):
            if accuracy.notna().all():
                values = {task.replace("_", " "): f"{value:.1%}" for task, value in accuracy.items()}
                lines[start, where] = values | {"mean": f"{accuracy.mean():.1%}"}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["start", "where"])


def composed_said(ends: pd.DataFrame) -> str:
    """Whether both together do better than either alone and than no stage one, in words."""
    table = medians(ends)
    both, others = table.loc[BOTH], table.drop(index=BOTH)
    leads = [task.replace("_", " ") for task in TASKS if both[task] > others[task].max()]
    means = ", ".join(f"*{start}* {mean:.0%}" for start, mean in others.mean(axis=1).items())
    return (
        f"Both together lead in {' and '.join(leads) if leads else 'no diagnostic'}. Mean over the diagnostics: both "
        f"together {both.mean():.0%}; {means}."
    )
