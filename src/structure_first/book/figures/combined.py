"""Every model a dot: a panel for each value of one factor, a column for each of another, a colour for a third."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.analysis import drawn
from structure_first.analysis.combined import PAPER
from structure_first.book.figures.style import DOTTED, GREY, facets, meant

BAR = 0.14  # of a column: as wide as a median's bar is on either side, where a column has several


def dots(models: pd.DataFrame, panel: str, column: str, colour: str, level: float | None = None) -> go.Figure:
    """Accuracy of every model; bars are medians, and a dotted line stands at `level`."""
    names, series = list(dict.fromkeys(models[column])), list(dict.fromkeys(models[colour]))
    colours = {name: GREY if name == "nothing" else meant(name.lower()) for name in series}
    apart, bar = (0.0, 2 * BAR) if colour == column else (0.3, BAR)
    fig, parts = facets(models, 440, panel, turned=60, shared_yaxes=True, horizontal_spacing=0.02)
    for at, part in parts:
        for (name, kind), here in part.groupby([column, colour] if apart else [column, column], sort=False):
            middle = names.index(name) + apart * (series.index(kind) - (len(series) - 1) / 2)
            style = {"legendgroup": kind, **at}
            told = name if name == kind else f"{name}, {kind}"
            fig.add_scatter(
                x=middle + np.linspace(-bar, bar, len(here) + 2)[1:-1],
                y=here["accuracy"].round(4),
                mode="markers",
                marker={"color": colours[kind], "size": 6, "opacity": 0.7},
                text=[f"{told}, seed {seed}" for seed in here["seed"]],
                hovertemplate="%{text}: %{y:.1%}<extra></extra>",
                name=kind,
                showlegend=apart > 0 and all(trace.name != kind for trace in fig.data),
                **style,
            )
            fig.add_scatter(
                x=[middle - bar, middle + bar],
                y=[here["accuracy"].median().round(4)] * 2,
                mode="lines",
                line={"color": colours[kind], "width": 3},
                hovertemplate=f"{told}: median %{{y:.1%}}<extra></extra>",
                name=f"{told}, median",
                showlegend=False,
                **style,
            )
    if level is not None:
        fig.add_hline(level, line=DOTTED)
    short = [name.removesuffix(f" {column}") for name in names]
    fig.update_xaxes(tickvals=list(range(len(names))), ticktext=short, tickangle=-35, showgrid=False)
    fig.update_yaxes(range=[-0.03, 1.05], tickformat=".0%").update_yaxes(title="accuracy", col=1)
    return fig.update_layout(legend={"y": 1.1}, margin={"t": 90, "b": 110})


def compositions(models: pd.DataFrame) -> go.Figure:
    """Every start of every diagnostic, and, hollow, what the paper has at its own sizes."""
    fig = dots(models.assign(task=models["task"].str.replace("_", " ")), "task", "start", "start")
    names = list(dict.fromkeys(models["start"]))
    for place, task in enumerate(dict.fromkeys(models["task"]), 1):
        stated(fig, names, PAPER[task], place)
    return fig


def draws(models: pd.DataFrame, task: str, across: str = "drawn") -> go.Figure:
    """Every start of one diagnostic, a panel for each way to draw it, or size (`across`); hollow, in the last, what the
    paper has.
    """
    models = models[models["task"] == task]
    fig = dots(models, across, "start", "start")
    stated(fig, list(dict.fromkeys(models["start"])), drawn.PAPER[task], models[across].nunique())
    return fig


def stated(fig: go.Figure, names: list[str], paper: Mapping[str, float], col: int) -> None:
    """The paper's numbers, hollow, in one panel; the legend names them once."""
    known = [(names.index(start), value) for start, value in paper.items() if start in names]
    fig.add_scatter(
        x=[x for x, _ in known],
        y=[y for _, y in known],
        mode="markers",
        marker={"symbol": "diamond-open", "size": 11, "color": GREY, "line": {"width": 2}},
        name=(name := "the paper, at its sizes"),
        hovertemplate="the paper: %{y:.1%}<extra></extra>",
        showlegend=all(trace.name != name for trace in fig.data),
        row=1,
        col=col,
    )
