"""Chapter 04: the grid of sources, diagnostics and what is carried over, beside its controls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.analysis import skills
from structure_first.analysis.skills import BETTER, CERTAIN, SOONER, TASKS, Measure
from structure_first.book.figures.runs import seed_dots
from structure_first.book.figures.style import CLEAR, DOTTED, plain
from structure_first.evidence.statistics import LEARNT

HARM_TO_GAIN = ((0, "rgba(213,94,0,0.8)"), (0.5, "rgba(140,140,140,0)"), (1, "rgba(15,127,196,0.8)"))


def heat_map(
    models: pd.DataFrame, fronts: Sequence[str], carried: Sequence[str], measure: Measure = BETTER
) -> go.Figure:
    """Median gain over random init: what came first down, diagnostics across, a button for each thing carried over."""
    table = skills.summary(models, measure.gain)
    tasks = [task for task in TASKS if (models["task"] == task).any()]
    if measure is SOONER:
        tasks, fronts = skills.in_time(table, fronts, carried)
    seeds = models.groupby("cell").apply(_seeds, include_groups=False)
    lines = table.assign(carried=table["carried"].fillna("")).reset_index().set_index(["carried", "front", "task"])
    if "random init" not in fronts:
        of_grid = table[table["front"].isin(fronts) & table["carried"].isin(carried) & table["task"].isin(tasks)]
        best = of_grid.groupby("front")["gain"].max().reindex(fronts).sort_values(ascending=False, kind="stable")
        fronts = ["random init", *best.index]
    fig = plain(170 + 27 * len(fronts), margin={"l": 150, "r": 20, "t": 110, "b": 60})
    ticks = {"tickvals": list(measure.ticks), "ticktext": list(measure.ticks.values())}
    bar = {"orientation": "h", "y": 0, "yanchor": "top"}
    for across in carried:
        down, gain, text, hover = [], [], [], []
        for front in fronts:
            keys = [("" if ("", front, task) in lines.index else across, front, task) for task in tasks]
            known = [lines.loc[key] if key in lines.index else None for key in keys]
            if all(line is None for line in known):
                continue  # nothing of it has run
            down.append(front)
            gain.append([np.nan if line is None else round(line["gain"], 4) for line in known])
            text.append(["" if line is None else _written(line, measure) for line in known])
            hover.append(["not run" if line is None else _told(line, seeds[line["cell"]], measure) for line in known])
        columns, shown = [task.replace("_", "<br>") for task in tasks], across == carried[0]
        fig.add_heatmap(
            z=gain,
            x=columns,
            y=down,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=HARM_TO_GAIN,
            zmin=-measure.most,
            zmax=measure.most,
            xgap=2,
            ygap=2,
            visible=shown,
            colorbar={"title": {"text": measure.title, "side": "bottom"}, "thickness": 10, "len": 0.7, **bar, **ticks},
        )
        # Text of its own, since a heat map's is black or white whatever the theme behind a clear cell.
        places = {"x": columns * len(down), "y": np.repeat(down, len(columns))}
        fig.add_scatter(**places, text=np.ravel(text), mode="text", hoverinfo="skip", showlegend=False, visible=shown)
    if len(carried) > 1:
        buttons = [
            {"label": each, "method": "restyle", "args": ["visible", [each == it for it in carried for _ in "zt"]]}
            for each in carried
        ]
        menu = {"type": "buttons", "direction": "right", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
        menu |= {"buttons": buttons, "pad": {"b": 52}, "bgcolor": CLEAR}  # room, in pixels, for the columns' names
        fig.update_layout(updatemenus=[menu])
    _for_phones(fig)
    fig.update_xaxes(side="top", showgrid=False, autotickangles=[0, -60])
    return fig.update_yaxes(autorange="reversed", showgrid=False)


def _for_phones(fig: go.Figure) -> None:
    """Smaller letters, and a list in place of a row of buttons, above turned names."""
    menus = [menu.to_plotly_json() | {"type": "dropdown", "pad": {"b": 85}} for menu in fig.layout.updatemenus]
    room = {"margin": {"l": 100, "r": 5, "t": 150}, "height": fig.layout.height + 40, "font": {"size": 10}}
    fig.update_layout(meta={"narrow": room | {"updatemenus": menus}})


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


def stage_ones(models: pd.DataFrame, fronts: Sequence[str]) -> go.Figure:
    """How well every seed's stage one was learnt, a line a source; the cells of a source share it."""
    learnt = models[models["front"].isin(fronts)].groupby(["front", "seed"])["learnt"].first()
    fig = seed_dots(learnt.rename_axis(["cell", "seed"]), "held-out accuracy of stage one")
    return fig.add_vline(LEARNT, line=DOTTED)
