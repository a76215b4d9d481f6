"""Chapter 04: the grid of sources, diagnostics and what is carried over, beside its controls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from structure_first.analysis.stored import ended, ordered, untreated
from structure_first.evidence.statistics import LEARNT, adjusted, final, interval, steps_to
from structure_first.experiments import skills
from structure_first.runs.jobs import Replica

SOLVED = 0.9
CERTAIN = 0.05
TASKS = tuple(skills.SIZES["laptop"].tasks)
UNTAUGHT = ("random init", "wide init", "tuned init", "longer training", "random tokens")  # by no structure

# Jiang et al. 2026, algorithmic tasks: accuracy at the paper's sizes, by our cell.
PAPER = {
    "haystack / random init": 0.113,
    "haystack / dyck 16 / mean rows": 0.98,
    "haystack / identity / mean rows": 0.188,
    "haystack / identity / attention": 0.990,
    "haystack / set / mean rows": 0.189,
    "haystack / set / attention": 0.889,
    "reversed_addition / random init": 0.764,
    "reversed_addition / stack / mean rows": 0.349,
    "reversed_addition / set / mean rows": 0.446,
}


class Measure(NamedTuple):
    """What is told of a cell: the column that is written, the one that it gains, and that one's scale."""

    written: str
    gain: str
    most: float  # at either end of the colours
    title: str
    ticks: dict[float, str]

    def says(self, line: pd.Series) -> str:
        """The median of a cell, in a few characters."""
        value = line[self.written]
        if self.written == "accuracy":
            return f"{value:.0%}"
        return f"{value:,.0f}" if np.isfinite(value) else "·"

    def compares(self, value: float) -> str:
        """A gain in words."""
        return f"{value:+z.1%}" if self.gain == "gain" else f"{2**value:.2f} times as soon"


BETTER = Measure("accuracy", "gain", 0.6, "gain", {share: f"{share:+z.0%}" for share in (-0.6, -0.3, 0, 0.3, 0.6)})
SOONER = Measure("steps", "sooner", 2, "times as soon", {-2: "¼", -1: "½", 0: "1", 1: "2", 2: "4"})
MEASURES = {"accuracy": BETTER, "steps to 90 %": SOONER}


def grid(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each model of the grid: accuracy, its gain over random init with the same seed, steps to 90 %
    (infinite if never), how many doublings sooner than random init that is (never, and later than the diagnostic's own
    steps, count as these), how well its stage one was learnt (NaN without one), and its cell's factors.
    """
    also = pd.DataFrame({"steps": steps_to(rows, SOLVED), "learnt": final(rows, "mastery")})
    models = ended(rows).join(also, on=["cell", "seed"])
    longest = {task: phase.stage.steps for task, phase in skills.diagnostics(rows["scale"].iloc[0]).items()}
    models["bounded"] = models["steps"].clip(upper=models["task"].map(longest))
    base = untreated(models, ["task", "seed"])
    models["gain"] = models["accuracy"] - base["accuracy"]
    models["sooner"] = np.log2(base["bounded"] / models["bounded"])
    return models.drop(columns="bounded")


def summary(models: pd.DataFrame, gain: str = "gain") -> pd.DataFrame:
    """A line a cell: medians over its seeds, the 95 % bootstrap interval of its `gain` (or of what `sooner` says), and
    its p-value corrected for all cells.
    """
    compared = models[(models["front"] != "random init") & models[gain].notna()]
    by_seed = compared.pivot(index="cell", columns="seed", values=gain).dropna(axis="columns")
    p = pd.Series(adjusted(by_seed.to_numpy()), by_seed.index) if by_seed.size else pd.Series(dtype=float)
    cells = models.groupby("cell", sort=False)
    table = cells[["task", "front", "carried"]].first()
    table[["accuracy", "gain", "steps", "learnt"]] = cells[["accuracy", gain, "steps", "learnt"]].median()
    ends = {cell: interval(seeds.to_numpy())[1:] for cell, seeds in compared.groupby("cell")[gain]}
    table[["low", "high"]] = pd.DataFrame.from_dict(ends, orient="index", columns=["low", "high"]).reindex(table.index)
    table["p"], table["solved"] = p.reindex(table.index), cells["accuracy"].agg(lambda each: (each >= SOLVED).mean())
    table["seeds"] = cells["seed"].count()
    return table


def learnt_said(models: pd.DataFrame, fronts: Sequence[str]) -> str:
    """How many of the sources were learnt, and which were not, in words."""
    medians = models[models["front"].isin(fronts)].groupby("front")["learnt"].median().sort_values()
    short, many = medians[medians < LEARNT], len(medians)
    told = f"**{many - len(short)} of {many} sources were learnt to {LEARNT:.0%} or more, in the median**"
    if len(short):
        told += f"; not so: {', '.join(f'*{front}* {learnt:.0%}' for front, learnt in short.items())}"
    return f"{told}."


def best_said(models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> str:
    """What is worth most on each diagnostic, and how many sources help by one part and harm by another, in words."""
    lines = []
    for task, here in _within(summary(models), fronts, carried).groupby("task", sort=False):
        best, of_front = here.loc[here["gain"].idxmax()], here.groupby("front")["gain"]
        gain, low, high = 100 * best[["gain", "low", "high"]].astype(float)
        both = ((of_front.min() < 0) & (of_front.max() > 0)).sum()
        lines.append(
            f"- **{task.replace('_', ' ')}**: most from *{best['front']}*, {best['carried']}: {gain:+z.0f} points "
            f"({low:+z.0f} to {high:+z.0f}). By one part or rule above random init and by another below: {both} of "
            f"{of_front.ngroups} sources."
        )
    return "\n".join(lines)


def said(models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str], measure: Measure = BETTER) -> str:
    """How many cells stand the correction, on which side of random init, and which do by a gain, in words."""
    here = _within(summary(models, measure.gain), fronts, carried)
    sure = here.loc[here["p"] <= CERTAIN, "gain"]
    which = "; ".join(f"*{cell}*" for cell in sure.index[sure > 0])
    better, worse = ("better", "worse") if measure is BETTER else ("sooner", "later")
    return (
        f"**Surely {better} than random init: {(sure > 0).sum()} of {len(here)} cells{f' ({which})' if which else ''}; "
        f"surely {worse}: {(sure < 0).sum()}.** The others differ from it by no more than chance may bring about. By "
        f"their medians {(here['gain'] > 0).sum()} of all are {better} and {(here['gain'] < 0).sum()} {worse}."
    )


def left_said(models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> str:
    """What a figure of steps leaves out, and how much of what it draws has no number, in words."""
    table = summary(models, SOONER.gain)
    tasks, shown = in_time(table, fronts, carried)
    here = _within(table, fronts, carried)
    left = [each.replace("_", " ") for each in TASKS if each in set(here["task"]) - set(tasks)]
    left += [front for front in fronts if front in set(here["front"]) - set(shown)]
    drawn = here[here["task"].isin(tasks) & here["front"].isin(shown)]
    dots = (~np.isfinite(drawn["steps"])).sum()
    told = f"With at most half of their seeds at 90 %: {dots} of the {len(drawn)} cells drawn, as a dot."
    return told + f" Left out, since no cell has more and none is surely later: {', '.join(left)}." * bool(left)


def in_time(table: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a figure of steps draws: the diagnostics in which some of these cells, or random init, have more than half
    of their seeds at 90 %; and the fronts of which some cell has, or stands the correction, but all of them where
    random init is named among them: controls are looked at side by side.
    """
    cells = _within(table, fronts, carried)
    with_base = pd.concat([cells, table[table["front"] == "random init"]])
    tasks = set(with_base.loc[np.isfinite(with_base["steps"]), "task"])
    moved = set(cells.loc[np.isfinite(cells["steps"]) | (cells["p"] <= CERTAIN), "front"])
    shown = [front for front in fronts if front in moved or "random init" in fronts]
    return [task for task in TASKS if task in tasks], shown


def _within(table: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> pd.DataFrame:
    return table[table["front"].isin(fronts) & table["carried"].isin(carried) & (table["front"] != "random init")]


def _solved(line: pd.Series) -> str:
    return f"{round(line['solved'] * line['seeds'])} of {line['seeds']}"


def standing(models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> pd.DataFrame:
    """The cells that do better than random init, or do it sooner, and stand the correction."""
    columns, lines = ["cell", "measured by", "median", "gain", "seeds at 90 %", "p, corrected"], []
    for name, measure in MEASURES.items():
        table = _within(summary(models, measure.gain), fronts, carried)
        for cell, line in table[(table["p"] <= CERTAIN) & (table["gain"] > 0)].iterrows():
            p = f"{line['p']:.3f}"
            lines.append([cell, name, measure.says(line), measure.compares(line["gain"]), _solved(line), p])
    return pd.DataFrame(lines, columns=columns).set_index(columns[:2])


def reached(models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str]) -> pd.DataFrame:
    """The cells of which more than half of the seeds come to 90 %, a line each, the soonest first."""
    table = _within(summary(models, SOONER.gain), fronts, carried)
    lines = {
        cell: {
            "median step at 90 %": SOONER.says(line),
            "to random init": f"{SOONER.compares(line['gain'])} ({2 ** line['low']:.2f} to {2 ** line['high']:.2f})",
            "seeds at 90 %": _solved(line),
            "p, corrected": f"{line['p']:.3f}",
        }
        for cell, line in table[np.isfinite(table["steps"])].sort_values("gain", ascending=False).iterrows()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


def bill(rows: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
    """What reaching 90 % costs, a line a cell that has run, medians over all of its seeds: updates of either stage, and
    the FLOPs of both together.
    """
    accuracy = rows[(rows["stage"] == 2) & (rows["metric"] == "accuracy")]
    recipes, lines = skills.TUNED.recipes(rows["scale"].iloc[0]), {}
    for cell in cells:
        own = accuracy[accuracy["cell"] == cell]
        if own.empty:
            continue
        reached = own[own["value"] >= SOLVED].groupby("seed")[["step", "flops"]].min()
        both = reached.reindex(own["seed"].unique()).fillna(np.inf)
        first = pd.DataFrame(0, both.index, both.columns)
        if before := Replica(cell, recipes[cell], 0).before:
            first = rows[rows["cell"] == before.cell].groupby("seed")[["step", "flops"]].max().loc[both.index]
        steps, flops = both["step"].median(), (both["flops"] + first["flops"]).median()
        lines[cell] = {
            "seeds at 90 %": f"{len(reached)} of {len(both)}",
            "updates of stage one": f"{first['step'].median():,.0f}",
            "of stage two": f"{steps:,.0f}" if np.isfinite(steps) else "never",
            "GFLOPs of both": f"{flops / 1e9:,.0f}" if np.isfinite(flops) else "",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


def beside_the_paper(models: pd.DataFrame) -> pd.DataFrame:
    """Each accuracy that the paper states, and ours in the same cell, at our sizes."""
    table, lines = summary(models), {}
    for cell, paper in PAPER.items():
        ours = table.loc[cell] if cell in table.index else None
        lines[cell] = {
            "paper": f"{paper:.1%}",
            "here, median": "not run" if ours is None else f"{ours['accuracy']:.1%}",
            "seeds at 90 %": "" if ours is None else _solved(ours),
            "stage one learnt": "" if ours is None or np.isnan(ours["learnt"]) else f"{ours['learnt']:.0%}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


def controls(models: pd.DataFrame) -> pd.DataFrame:
    """The cells that ask whether it is the structure, each named as a source of its own, beside what they control."""
    named = {(front, ""): front for front in UNTAUGHT} | {("random tokens", "full"): "random tokens"}
    for front in sorted(models.loc[models["carried"] == "permuted", "front"].unique()):
        twins = {(f"shuffled {front}", "full"): f"shuffled {front}", (front, "permuted"): f"{front}, permuted"}
        named |= {(front, "full"): front} | twins
    shown = [named.get(each) for each in zip(models["front"], models["carried"].fillna(""), strict=True)]
    models = models.assign(front=shown, carried="full").dropna(subset="front")
    return ordered(models, "front", dict.fromkeys(named.values()))
