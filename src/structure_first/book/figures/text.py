"""Chapters 05 and 06: what structure in front does to the loss on text."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.analysis.downstream import WHEN
from structure_first.analysis.stored import ordered
from structure_first.analysis.text import SWEPT, at_each_budget, baseline
from structure_first.book.figures.style import DOTTED, PALETTE, facets, looks
from structure_first.evidence.statistics import interval
from structure_first.experiments import additive

GAIN = "gain, nats"


def line(fig: go.Figure, part: pd.DataFrame, x: str, y: str, name: str, hover: str, **look) -> None:
    """In one panel every seed a dot, and a line through their medians with 95 % intervals; the legend names it once."""
    part = part.dropna(subset=y)
    if part.empty:
        return
    colour, common = look["color"], {"legendgroup": name, "offsetgroup": name, "row": look["row"], "col": look["col"]}
    fig.add_scatter(
        x=part[x],
        y=part[y].round(4),
        mode="markers",
        marker={"size": 4, "color": colour, "opacity": 0.5},
        text=part["seed"],
        hovertemplate=f"{name}, {hover}, seed %{{text}}<extra></extra>",
        name=f"{name}, one seed",
        showlegend=False,
        **common,
    )
    ends = {at: interval(seeds.to_numpy()) for at, seeds in part.groupby(x, observed=True)[y]}
    middle, low, high = np.array(list(ends.values())).T
    error = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 0}
    fig.add_scatter(
        x=list(ends),
        y=middle.round(4),
        error_y=error | {"array": (high - middle).round(4), "arrayminus": (middle - low).round(4)},
        mode=look.get("mode", "lines+markers"),
        line={"color": colour, "dash": look["dash"]},
        marker={"color": colour, "symbol": look.get("symbol", "circle"), "size": 7},
        hovertemplate=f"{name}, {hover}, median<extra></extra>",
        name=name,
        showlegend=all(trace.name != name or not trace.showlegend for trace in fig.data),
        **common,
    )


def lines(
    models: pd.DataFrame, height: int, x: str, y: str, by: str, own: Mapping[str, dict], hover: str, **grid
) -> go.Figure:
    """A panel a corpus, side by side unless the `grid` says how: in each a `line` for each name and its `own` look."""
    side_by_side = {"across": "task", "shared_yaxes": True, "horizontal_spacing": 0.05}
    fig, parts = facets(models, height, **grid or side_by_side)
    for at, part in parts:
        for name, look in looks(own).items():
            line(fig, part[part[by] == name], x, y, name, hover, **look | own[name], **at)
    return fig.update_layout(legend={"y": 1.1})


def stepped(fig: go.Figure, amounts: pd.Series, title: str, **at: int) -> None:
    """An axis on which what was swept stands in equal steps, zero too."""
    fig.update_xaxes(type="category", categoryarray=sorted(amounts.unique()), title=title, **at)


def tuned(tuning: pd.DataFrame, size: additive.Size) -> go.Figure:
    """The baseline's final loss against its learning rate, the deviation of its first weights, the updates in which the
    rate rises, and its weight decay, a line a corpus; a cross has GPT-2's small embeddings.
    """
    last = ordered(baseline(tuning, size), "swept", SWEPT)
    fig, parts = facets(last, 400, "swept", subplot_titles=None, shared_yaxes=True, horizontal_spacing=0.05)
    for at, here in parts:
        for colour, corpus in zip(PALETTE, sorted(set(last["task"])), strict=False):
            for narrow, part in here[here["task"] == corpus].sort_values("amount").groupby("narrow"):
                fig.add_scatter(
                    x=part["amount"],
                    y=part["loss"].round(4),
                    name=corpus,
                    legendgroup=corpus,
                    mode="markers" if narrow else "lines+markers",
                    marker={"color": colour, "symbol": "x" if narrow else "circle", "size": 8},
                    line={"color": colour},
                    text=part["cell"],
                    hovertemplate="%{text}: %{y:.3f} nats<extra></extra>",
                    showlegend=at["col"] == 1 and not narrow,
                    **at,
                )
        stepped(fig, here.loc[~here["narrow"], "amount"], SWEPT[here["swept"].iloc[0]], col=at["col"])
    fig.update_layout(legend={"y": 1.1})
    return fig.update_yaxes(title="final loss, nats a token", col=1)


def dose(last: pd.DataFrame) -> go.Figure:
    """The gain over random init against the tokens in front, as a share of the text: the main source and its controls,
    a panel a corpus.
    """
    main = additive.MAIN
    swept = last[last["share"].notna() & last["gain"].notna()]
    parts = swept["carried"].map({"full": "", "mlp": ", mlp alone"})  # others: no name
    swept = swept.assign(name=swept["front"] + parts)
    own = {name: {"symbol": symbol} for name, symbol in ((main, "circle"), (f"{main}, mlp alone", "triangle-up"))}
    controls = {"text": "diamond", f"shuffled {main}": "x", "random tokens": "cross", "set": "square"}
    own |= {name: {"symbol": symbol, "dash": "dot"} for name, symbol in controls.items()}
    fig = lines(swept, 440, "share", "gain", "name", own, "%{x:.1%} in front: %{y:+.3f} nats").add_hline(0, line=DOTTED)
    fig.update_layout(margin={"t": 90})
    ticks, ends = additive.SHARES[::2], np.log10(additive.SHARES)  # all of them would not fit
    reach = [ends[0] - 0.15, ends[-1] + 0.15]
    fig.update_xaxes(type="log", tickvals=ticks, tickformat=".1~%", range=reach, title="tokens in front")
    # The medians fill the panels: a single seed gone astray would leave no room for them.
    shown = [0.0, *(value for trace in fig.data if "lines" in trace.mode for value in trace.y)]
    low, high = min(shown), max(shown)
    margin = 0.25 * (high - low) or 1.0
    fig.update_yaxes(range=[low - margin, high + margin])
    return fig.update_yaxes(title="gain, nats a token", col=1)


def where(last: pd.DataFrame) -> go.Figure:
    """The gain of the main front by what of it is carried over, every seed a dot, a panel a corpus; and that of an
    initialisation which is only wider.
    """
    wider, main = last["front"] == "wider init", additive.MAIN
    last = last.assign(carried=last["carried"].mask(wider, "wider init"))
    here = last[(wider | (last["front"] == main) & (last["share"] == additive.CONTROLLED[0])) & last["gain"].notna()]
    here = here[here["task"].isin(here.loc[here["front"] == main, "task"])]
    kinds = sorted(set(here["carried"]), key=[*additive.CARRIED, "wider init"].index)
    own: dict[str, dict] = {kind: {} for kind in kinds}
    fig = lines(here, 400, "carried", "gain", "carried", own, "%{y:+.3f} nats").add_hline(0, line=DOTTED)
    order = {"categoryorder": "array", "categoryarray": kinds, "range": [-0.5, len(kinds) - 0.5]}
    fig.update_xaxes(**order, showgrid=False, tickangle=-45, automargin=True)  # else the last name leaves the page
    return fig.update_layout(showlegend=False).update_yaxes(title="gain, nats a token", col=1)


def fronts(last: pd.DataFrame) -> go.Figure:
    """The gain of every source, by what of it is carried over, every seed a dot, a panel below another for a corpus."""
    one_per_cent = last["share"] == additive.CONTROLLED[0]
    here = last[last["front"].isin(additive.SOURCES) & one_per_cent & last["gain"].notna()]
    own = {kind: {"mode": "markers"} for kind in ("full", "attention", "mlp") if (here["carried"] == kind).any()}
    grid = {"down": "task", "shared_xaxes": True, "vertical_spacing": 0.07}
    height = 120 + 190 * here["task"].nunique()
    fig = lines(here, height, "front", "gain", "carried", own, "%{x}: %{y:+.3f} nats", **grid)
    fig.add_hline(0, line=DOTTED)
    fig.update_xaxes(categoryorder="array", categoryarray=list(additive.SOURCES), showgrid=False)
    fig.update_yaxes(title="gain, nats", matches="y")
    return fig.update_layout(legend={"y": 1.05}, scattermode="group", scattergap=0.5)


# Less text


def iso_loss(models: pd.DataFrame) -> go.Figure:
    """Final loss against the share of the text, a line for what was in front, every seed a dot; the dotted line is the
    loss that all of the text buys without.
    """
    models = models[models["width"] == models["width"].max()]
    own: dict[str, dict] = {label: {} for label in dict.fromkeys(models["label"])}
    grid = {"across": "task", "horizontal_spacing": 0.08}
    fig = lines(models, 430, "text", "loss", "label", own, "%{x:.0%} of the text: %{y:.3f}", **grid)
    for column, target in enumerate(models.groupby("task", sort=False)["target"].median(), 1):
        fig.add_hline(target, line=DOTTED, row=1, col=column)
    fig.update_layout(margin={"t": 90}).update_xaxes(title="share of the text", tickformat=".0%")
    return fig.update_yaxes(title="final loss, nats a token", col=1)


def budgets(models: pd.DataFrame) -> go.Figure:
    """What the front is worth at each budget: the gain over random init on the same share of the text."""
    models = at_each_budget(models)
    own: dict[str, dict] = {label: {} for label in dict.fromkeys(models["label"])}
    fig = lines(models, 420, "text", "gain", "label", own, "%{x:.0%} of the text: %{y:+.3f} nats")
    fig.add_hline(0, line=DOTTED)
    fig.update_layout(margin={"t": 90}).update_xaxes(title="share of the text", tickformat=".0%")
    return fig.update_yaxes(title="gain, nats a token", col=1)


def worth(
    models: pd.DataFrame, across: str, column: str, order: Iterable[str], shown: Iterable[str], mode: str = "markers"
) -> go.Figure:
    """The gain of every seed by a column, with the labels' medians, a panel for each value of the column `across`."""
    grid = {"across": across, "shared_yaxes": True, "horizontal_spacing": 0.05}
    own = {label: {"mode": mode} for label in shown}
    fig = lines(models, 380, column, "gain", "label", own, "%{x}: %{y:+.3f} nats", **grid)
    fig.update_xaxes(categoryorder="array", categoryarray=list(order), showgrid=False)
    fig.update_yaxes(title=GAIN, col=1).add_hline(0, line=DOTTED)
    return fig.update_layout(legend={"y": 1.12})


def lasting(models: pd.DataFrame) -> go.Figure:
    """What a front is worth at the end of the text that it stood before, and of the text after that; a panel a pair."""
    shown = [label for label in dict.fromkeys(models["label"]) if label not in ("random init", "no text")]
    models = models.assign(task=models["task"].str.replace(", ", ",<br>"))  # four panels have no room for it in a line
    fig = worth(models, "task", "when", WHEN, shown, "lines+markers").update_xaxes(range=[-0.4, 1.4])
    return fig.update_layout(margin={"t": 100}, legend={"y": 1.2})
