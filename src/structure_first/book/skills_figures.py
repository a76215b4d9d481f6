"""Chapter 04's figures and tables: the grid of sources, diagnostics and transfers, beside its controls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.book import figures
from structure_first.evidence.statistics import adjusted, final, interval, steps_to
from structure_first.experiments import skills
from structure_first.runs.jobs import Replica
from structure_first.runs.recipe import Experiment

LEARNT = 0.9  # a stage one below this accuracy is marked: what it did not learn it cannot hand on
SOLVED = 0.9
CERTAIN = 0.05
HARM_TO_GAIN = ((0, "rgba(213,94,0,0.8)"), (0.5, "rgba(140,140,140,0)"), (1, "rgba(15,127,196,0.8)"))

# Jiang et al. 2026, algorithmic tasks: accuracy at the paper's sizes.
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
    """What a heat map shows of a cell: the column that is written, the one that is coloured, and its scale."""

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
        return f"{value:,.0f}" if np.isfinite(value) else "never"

    def compares(self, value: float) -> str:
        """A gain in words."""
        return f"{value:+.1%}" if self.gain == "gain" else f"{2**value:.2f} times as soon"


BETTER = Measure("accuracy", "gain", 0.6, "gain", {share: f"{share:+.0%}" for share in (-0.6, -0.3, 0, 0.3, 0.6)})
SOONER = Measure("steps", "sooner", 2, "times<br>as soon", {-2: "¼", -1: "½", 0: "1", 1: "2", 2: "4"})
MEASURES = {"accuracy": BETTER, "steps to 90 %": SOONER}


def grid(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each model of the grid: accuracy, its gain over random init with the same seed, steps to 90 %
    (infinite if never), how many doublings sooner than random init that is (never counts as the last step that a cell
    has), how well its stage one was learnt (NaN without one), and what its cell's name says.
    """
    last = final(rows)
    found = pd.DataFrame({"accuracy": last, "steps": steps_to(rows, SOLVED), "learnt": final(rows, "mastery")})
    found = found.loc[last.index].reset_index()
    names = found["cell"].str.split(" / ", expand=True).reindex(columns=range(3))
    found["task"], found["source"], found["transfer"] = names[0], names[1], names[2].fillna("")
    stages = {task: phase.stage for task, phase in skills.diagnostics(rows["scale"].iloc[0]).items()}
    found["bounded"] = found["steps"].clip(upper=found["task"].map(lambda task: stages[task].steps))
    base = found[found["source"] == "random init"].set_index(["task", "seed"])[["accuracy", "bounded"]]
    base = base.reindex(pd.MultiIndex.from_frame(found[["task", "seed"]])).reset_index()
    found["gain"] = found["accuracy"] - base["accuracy"]
    found["sooner"] = np.log2(base["bounded"] / found["bounded"])
    return found.drop(columns="bounded")


def summary(found: pd.DataFrame, gain: str = "gain") -> pd.DataFrame:
    """A line a cell: medians over its seeds, the 95 % bootstrap interval of its `gain` (or of what `sooner` says), and
    its p-value corrected for all cells.
    """
    compared = found[(found["source"] != "random init") & found[gain].notna()]
    by_seed = compared.pivot(index="cell", columns="seed", values=gain).dropna(axis="columns")
    p = pd.Series(adjusted(by_seed.to_numpy()), by_seed.index) if by_seed.size else pd.Series(dtype=float)
    cells = found.groupby("cell", sort=False)
    table = cells[["task", "source", "transfer"]].first()
    table[["accuracy", "gain", "steps", "learnt"]] = cells[["accuracy", gain, "steps", "learnt"]].median()
    ends = {cell: interval(seeds.dropna().to_numpy()) for cell, seeds in compared.groupby("cell")[gain]}
    ends = pd.DataFrame.from_dict(ends, orient="index", columns=["gain", "low", "high"])
    table[["low", "high"]] = ends[["low", "high"]].reindex(table.index)
    table["p"], table["solved"] = p.reindex(table.index), cells["accuracy"].agg(lambda each: (each >= SOLVED).mean())
    table["seeds"] = cells["seed"].count()
    return table


def heat_map(
    found: pd.DataFrame, sources: Sequence[str], transfers: Sequence[str], measure: Measure = BETTER
) -> go.Figure:
    """Median gain over random init: sources down, diagnostics across, a button for each transfer."""
    table = summary(found, measure.gain)
    tasks = [task for task in skills.diagnostics("laptop") if (found["task"] == task).any()]
    seeds = found.groupby("cell").apply(_seeds, include_groups=False)
    lines = table.reset_index().set_index(["transfer", "source", "task"])
    fig = figures.plain(140 + 27 * len(sources), margin={"l": 150, "r": 20, "t": 110, "b": 30})
    for transfer in transfers:
        gain, text, hover = [], [], []
        for source in sources:
            keys = [(transfer, source, task) for task in tasks]
            known = [lines.loc[key] if key in lines.index else None for key in keys]
            gain.append([np.nan if line is None else round(line["gain"], 4) for line in known])
            text.append(["" if line is None else _written(line, measure) for line in known])
            hover.append(["not run" if line is None else _told(line, seeds[line["cell"]], measure) for line in known])
        columns, shown = [task.replace("_", "<br>") for task in tasks], transfer == transfers[0]
        fig.add_heatmap(
            z=gain,
            x=columns,
            y=list(sources),
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=HARM_TO_GAIN,
            zmin=-measure.most,
            zmax=measure.most,
            xgap=2,
            ygap=2,
            visible=shown,
            colorbar={
                "title": measure.title,
                "tickvals": list(measure.ticks),
                "ticktext": list(measure.ticks.values()),
                "thickness": 12,
            },
        )
        # Text of its own, since a heat map's is black or white whatever the theme behind a clear cell.
        places = {"x": columns * len(sources), "y": np.repeat(sources, len(columns))}
        fig.add_scatter(**places, text=np.ravel(text), mode="text", hoverinfo="skip", showlegend=False, visible=shown)
    if len(transfers) > 1:
        buttons = [
            {
                "label": each,
                "method": "restyle",
                "args": ["visible", [each == other for other in transfers for _ in "zt"]],
            }
            for each in transfers
        ]
        fig.update_layout(updatemenus=[_menu(buttons)])
    fig.update_xaxes(side="top", showgrid=False, tickangle=0)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig


def tally(found: pd.DataFrame, sources: Sequence[str], transfers: Sequence[str]) -> pd.DataFrame:
    """How many cells do better than random init and how many worse, in the median and after the correction."""
    lines = {}
    for name, measure in MEASURES.items():
        table = summary(found, measure.gain)
        for transfer in transfers:
            here = table[table["source"].isin(sources) & (table["transfer"] == transfer)]
            certain = here.loc[here["p"] <= CERTAIN, "gain"]
            lines[name, transfer] = {
                "cells": len(here),
                "better, median": (here["gain"] > 0).sum(),
                "worse, median": (here["gain"] < 0).sum(),
                "better, corrected": (certain > 0).sum(),
                "worse, corrected": (certain < 0).sum(),
            }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["measured by", "across"])


def standing(found: pd.DataFrame, sources: Sequence[str], transfers: Sequence[str]) -> pd.DataFrame:
    """The cells that do better than random init, or do it sooner, and stand the correction."""
    lines = {}
    for name, measure in MEASURES.items():
        table = summary(found, measure.gain)
        table = table[table["source"].isin(sources) & table["transfer"].isin(transfers)]
        for cell, line in table[(table["p"] <= CERTAIN) & (table["gain"] > 0)].iterrows():
            lines[cell, name] = {
                "median": measure.says(line),
                "gain": measure.compares(line["gain"]),
                "seeds at 90 %": f"{line['solved']:.0%} of {line['seeds']}",
                "p, corrected": f"{line['p']:.3f}",
            }
    columns = ["median", "gain", "seeds at 90 %", "p, corrected"]
    index = pd.MultiIndex.from_tuples(lines, names=["cell", "measured by"])
    return pd.DataFrame(list(lines.values()), index, columns)


def bill(rows: pd.DataFrame, cells: Sequence[str], experiment: Experiment = skills.TUNED) -> pd.DataFrame:
    """What reaching 90 % costs, a line a cell, medians over all of its seeds: updates of either stage, and the FLOPs of
    both together.
    """
    accuracy = rows[(rows["stage"] == 2) & (rows["metric"] == "accuracy")]
    recipes, lines = experiment.recipes(rows["scale"].iloc[0]), {}
    for cell in cells:
        reached = accuracy[(accuracy["cell"] == cell) & (accuracy["value"] >= SOLVED)]
        reached = reached.groupby("seed")[["step", "flops"]].min()
        both = reached.reindex(accuracy.loc[accuracy["cell"] == cell, "seed"].unique()).fillna(np.inf)
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


def _menu(buttons: list[dict]) -> dict:
    return {"type": "buttons", "direction": "right", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"} | {
        "buttons": buttons,
        "pad": {"b": 52},  # pixels above the plot: the legend or the names of the columns lie between
        "bgcolor": figures.CLEAR,
    }


def _written(line: pd.Series, measure: Measure) -> str:
    """A cell's median: bold where the gain stands the correction, a ring where stage one was not learnt."""
    number = measure.says(line) + ("°" if line["learnt"] < LEARNT else "")
    return f"<b>{number}</b>" if line["p"] <= CERTAIN else number


def _told(line: pd.Series, seeds: str, measure: Measure) -> str:
    learnt = "" if np.isnan(line["learnt"]) else f"<br>stage one learnt to {line['learnt']:.0%}"
    p = "" if np.isnan(line["p"]) else f", corrected p {line['p']:.3f}"
    gain, low, high = (measure.compares(line[name]) for name in ("gain", "low", "high"))
    return f"{line['cell']}<br>median {measure.says(line)}, {gain} ({low} to {high}){p}{learnt}<br>{seeds}"


def _seeds(cell: pd.DataFrame) -> str:
    """Every seed's accuracy and when it passed 90 %."""
    steps = cell["steps"].map(lambda step: f"90 % at step {step:,.0f}" if np.isfinite(step) else "never at 90 %")
    lines = zip(cell["seed"], cell["accuracy"], steps, strict=True)
    return "<br>".join(f"seed {seed}: {value:.1%}, {when}" for seed, value, when in lines)


def ranking(found: pd.DataFrame, sources: Sequence[str], transfers: Sequence[str]) -> go.Figure:
    """Per diagnostic (buttons) the sources from best to worst: every transfer's seeds, median and its interval."""
    table = summary(found)
    tasks = [task for task in skills.diagnostics("laptop") if (table["task"] == task).any()]
    fig = figures.plain(140 + 30 * len(sources), margin={"l": 150, "t": 120}, xaxis={"tickformat": ".0%"})
    fig.update_layout(legend={"y": 1.01})
    buttons, per_task = [], 2 * len(transfers) + 1
    for number, task in enumerate(tasks):
        here = table[(table["task"] == task) & table["source"].isin(sources) & table["transfer"].isin(transfers)]
        order = here.groupby("source")["accuracy"].max().sort_values().index.to_list()
        base = table.loc[f"{task} / random init", "accuracy"]
        for place, transfer in enumerate(transfers):
            lines = here[here["transfer"] == transfer].set_index("source").reindex(order)
            heights = pd.Series(np.arange(len(order)) + 0.18 * (place - (len(transfers) - 1) / 2), order)
            seeds = found[found["cell"].isin(here.index[here["transfer"] == transfer])]
            fig.add_scatter(
                x=seeds["accuracy"].round(4),
                y=heights[seeds["source"]],
                mode="markers",
                marker={"size": 4, "color": figures.PALETTE[place], "opacity": 0.45},
                text=seeds["source"] + f", {transfer}, seed " + seeds["seed"].astype(str),
                hovertemplate="%{text}: %{x:.1%}<extra></extra>",
                legendgroup=transfer,
                showlegend=False,
                visible=number == 0,
            )
            fig.add_scatter(
                x=lines["accuracy"].round(4),
                y=heights,
                legendgroup=transfer,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (lines["high"] - lines["gain"]).round(4),
                    "arrayminus": (lines["gain"] - lines["low"]).round(4),
                    "thickness": 1.2,
                    "width": 0,
                },
                mode="markers",
                name=transfer,
                marker={
                    "size": 9,
                    "color": figures.PALETTE[place],
                    "symbol": ["circle-open" if learnt < LEARNT else "circle" for learnt in lines["learnt"]],
                },
                text=[f"{source}, {transfer}" for source in order],
                hovertemplate="%{text}: median %{x:.1%}<extra></extra>",
                visible=number == 0,
            )
        fig.add_scatter(
            x=[base, base],
            y=[-0.5, len(order) - 0.5],
            mode="lines",
            line={"dash": "dot", "color": figures.GREY},
            name="random init",
            visible=number == 0,
            hovertemplate="random init: %{x:.1%}<extra></extra>",
        )
        shown = [number * per_task <= trace < (number + 1) * per_task for trace in range(per_task * len(tasks))]
        ticks = {"tickvals": list(range(len(order))), "ticktext": [f"{source} " for source in order]}
        title = task.replace("_", " ")
        axes = {f"yaxis.{name}": value for name, value in ticks.items()} | {"xaxis.title.text": f"accuracy, {title}"}
        buttons.append({"label": title, "method": "update", "args": [{"visible": shown}, axes]})
        if number == 0:
            fig.update_yaxes(**ticks)
            fig.update_xaxes(title=f"accuracy, {title}")
    fig.update_yaxes(showgrid=False, range=[-0.6, len(sources) - 0.4])
    fig.update_layout(updatemenus=[_menu(buttons)])
    return fig


def stage_ones(rows: pd.DataFrame, scale: str) -> go.Figure:
    """How well every seed's stage one was learnt, a line a source."""
    last = final(rows, stage=1)
    names = {phase.label: name for name, phase in skills.sources(scale).items()}
    labels = [cell.removeprefix("stage one: ").rpartition(" ")[0] for cell in last.index.get_level_values("cell")]
    known = [label in names for label in labels]
    shown = last[known]
    shown.index = pd.MultiIndex.from_arrays(
        [[names[label] for label in labels if label in names], shown.index.get_level_values("seed")],
        names=["cell", "seed"],
    )
    fig = figures.seed_dots(shown, "held-out accuracy of stage one")
    return fig.add_vline(LEARNT, line={"dash": "dot", "color": figures.GREY})


def beside_the_paper(found: pd.DataFrame) -> pd.DataFrame:
    """Each accuracy that the paper states, and ours in the same cell, at our sizes."""
    table, lines = summary(found), {}
    for cell, paper in PAPER.items():
        ours = table.loc[cell] if cell in table.index else None
        lines[cell] = {
            "paper": f"{paper:.1%}",
            "here, median": "not run" if ours is None else f"{ours['accuracy']:.1%}",
            "seeds at 90 %": "" if ours is None else f"{round(ours['solved'] * ours['seeds'])} of {ours['seeds']}",
            "stage one learnt": "" if ours is None or np.isnan(ours["learnt"]) else f"{ours['learnt']:.0%}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


def controls(found: pd.DataFrame) -> pd.DataFrame:
    """The cells that ask whether it is the structure, each named as a source of its own, beside what they control."""
    found = found[found["transfer"] != skills.SAME]
    changed = found["source"].str.startswith("shuffled ")
    permuted = found["transfer"] == "permuted"
    controlled = set(found.loc[changed, "source"].str.removeprefix("shuffled ")) | set(found.loc[permuted, "source"])
    kept = found["source"].isin(controlled) & (found["transfer"] == "full") | permuted | changed
    none = ["random init", "wide init", "tuned init", "longer training", "random tokens"]
    kept |= found["source"].isin(none)
    shown = found[kept].copy()
    shown.loc[permuted[kept], "source"] += ", permuted"
    shown["transfer"] = "full"
    names = none + [name for each in sorted(controlled) for name in (each, f"shuffled {each}", f"{each}, permuted")]
    return shown.sort_values("source", key=lambda sources: sources.map(names.index), kind="stable")
