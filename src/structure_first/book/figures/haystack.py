"""Chapter 03: when the seeds jump, and the heads that make them."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from structure_first.analysis.attention import needed
from structure_first.analysis.haystack import LOOKS, HeadStudy, Watched, guess, whole_layers
from structure_first.book.figures.runs import jump_curves
from structure_first.book.figures.style import DOTTED, GREY, INK, PALETTE, TEMPLATE, facets, stacked
from structure_first.book.figures.tokens import in_haystack
from structure_first.data.batch import Source

KINDS = ("previous token", "induction", "bracket match", *LOOKS, "copying")
BOTH_WAYS = ((0, "rgba(213,94,0,1)"), (0.5, "rgba(213,94,0,0)"), (0.5, "rgba(15,127,196,0)"), (1, "rgba(15,127,196,1)"))


def curves(rows: pd.DataFrame, cells: Sequence[str], task: Source) -> go.Figure:
    """Accuracy against the step, a line a seed, with the guesser's level."""
    fig = jump_curves(rows, cells).add_hline(guess(task), line=DOTTED)
    return fig.update_yaxes(range=[0, 1.03], tickformat=".0%")


def training_maps(of: Watched) -> go.Figure:
    """Every head's attention on one example, with a slider over the training."""
    said = {step: f"{of.name}, step {step:,}: {of.right[step]:.0%} right" for step in of.maps}
    last = max(of.maps)
    fig = head_maps(of.maps[last], of.tokens, of.layers)
    fig.update_layout(title={"text": said[last], "font": {"size": 15}})
    steps = [
        {"label": f"{step:,}", "method": "update", "args": [{"z": maps}, {"title.text": said[step]}]}
        for step, maps in of.maps.items()
    ]
    place = {"active": len(steps) - 1, "currentvalue": {"prefix": "step "}, "pad": {"t": 45}}
    return fig.update_layout(sliders=[{"steps": steps, **place}])


def head_maps(percent: Sequence[Sequence[Sequence[int]]], tokens: Sequence[int], layers: int) -> go.Figure:
    """Attention on a haystack, a panel a head and a row a layer, with rings where recall has to look.

    That is `needed`, of the last layer in all but the first.
    """
    names, heads, places = [in_haystack(token) for token in tokens], len(percent) // layers, needed(tokens)
    answer = places[1][0][1]
    names[answer] = f"<b>▶{names[answer]}</b>"
    titles = [f"layer {layer}, head {head}" for layer in range(layers) for head in range(heads)]
    gaps = {"horizontal_spacing": 0.02, "vertical_spacing": 0.35 / (layers + 1)}
    fig = make_subplots(layers, heads, subplot_titles=titles, shared_yaxes=True, **gaps)
    fig.update_layout(template=TEMPLATE, height=190 + 230 * layers, margin={"t": 85, "l": 45})
    said = [[f"{query} looks at {key}" for key in names] for query in names]
    for number, weights in enumerate(percent):
        panel = {"row": 1 + number // heads, "col": 1 + number % heads}
        scale = {"colorscale": INK, "zmin": 0, "zmax": 100, "showscale": False}
        fig.add_heatmap(z=weights, text=said, hovertemplate="%{text}: %{z} %<extra></extra>", **scale, **panel)
        for query, key in places[number >= heads]:
            corners = {"x0": key - 0.5, "x1": key + 0.5, "y0": query - 0.5, "y1": query + 0.5}
            fig.add_shape(type="rect", line={"color": PALETTE[1], "width": 1.5}, **corners, **panel)
    fig.update_annotations(font_size=12)
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "tickfont": {"size": 9}, "showgrid": False}
    fig.update_xaxes(tickangle=-90, **ticks)
    unnamed: dict = {f"xaxis{panel}": {"showticklabels": False} for panel in ("", *range(2, 1 + len(percent)))}
    two_lines = [each.to_plotly_json() | {"text": each.text.replace(", ", "<br>")} for each in fig.layout.annotations]
    small = {"annotations": two_lines, "title": {"font": {"size": 10}}}
    fig.update_layout(meta={"narrow": unnamed | small})  # the order is that of the rows
    return fig.update_yaxes(range=[len(names) - 0.5, -0.5], **ticks)


def kinds(of: HeadStudy) -> go.Figure:
    """How much of each kind each head is, a panel a state, with a menu of the models."""
    states = list(of.scores["state"].unique())
    drawn = {}
    for model, scores in of.scores.groupby("model", sort=False):
        parts = [scores[scores["state"] == state] for state in states]
        tables = [part.pivot(index=["layer", "head"], columns="kind", values="score").round(3) for part in parts]
        tables = [table[[kind for kind in KINDS if kind in table]] for table in tables]
        names = [f"layer {layer}, head {head} " for layer, head in tables[0].index]
        drawn[model] = [dict(x=list(table), y=names, z=table.to_numpy().tolist()) for table in tables]
    fig = make_subplots(1, len(states), subplot_titles=states, shared_yaxes=True, horizontal_spacing=0.03)
    for number, panel in enumerate(next(iter(drawn.values())), 1):
        scale = {"colorscale": BOTH_WAYS, "zmin": -1, "zmax": 1, "showscale": False}
        fig.add_heatmap(hovertemplate="%{y}: %{x} %{z:.2f}<extra></extra>", **panel, **scale, row=1, col=number)
    choices = [
        {"label": model, "method": "restyle", "args": [{axis: [panel[axis] for panel in panels] for axis in "xz"}]}
        for model, panels in drawn.items()
    ]
    menu = {"buttons": choices, "x": 0, "xanchor": "left", "y": 1.15, "yanchor": "bottom"}
    margin = {"t": 100, "b": 100, "l": 110}
    fig.update_layout(template=TEMPLATE, height=500, margin=margin, updatemenus=[menu])
    fig.update_layout(meta={"narrow": stacked(fig, len(states), 600, turned=50)})
    fig.update_xaxes(tickangle=-45, showgrid=False)
    return fig.update_yaxes(autorange="reversed", showgrid=False)


def losses(of: HeadStudy) -> go.Figure:
    """The accuracy that goes with each head, the heads of a layer from the costliest: a line a model."""
    fig = by_layer(of, "accuracy lost")
    for (model, layer), group in of.ablations.groupby(["model", "layer"], sort=False):
        ordered = group.sort_values("lost", ascending=False)
        fig.add_scatter(
            x=list(range(1, 1 + len(ordered))),
            y=ordered["lost"],
            mode="lines+markers",
            **named(of, model, layer),
            text=[f"{model}: layer {layer}, head {head}" for head in ordered["head"]],
            hovertemplate="%{text}<br>costs %{y:.0%}<extra></extra>",
        )
    return fig.update_xaxes(title="head, the costliest first", dtick=1)


def origins(of: HeadStudy) -> go.Figure:
    """The accuracy with all heads of a layer as stage two found them, a disc a model, and with the controls' heads."""
    fig = by_layer(of, "accuracy")
    layers = whole_layers(of)
    for (model, layer, donor), group in layers.groupby(["model", "layer", "donor"], sort=False):
        style = named(of, model, layer)
        if donor != "as found":
            symbol = {"permuted": "cross-thin", "fresh": "x-thin"}[donor]
            style |= {"marker": {"symbol": symbol, "size": 9, "line": {"color": GREY, "width": 2}}}
            style |= {"name": f"{donor} weights", "legendgroup": donor, "legendrank": 2000}
            style["showlegend"] &= bool(model == layers["model"].iloc[0])
        fig.add_scatter(
            x=group["part"],
            y=group["accuracy"],
            mode="markers",
            **{"marker": {"size": 10}} | style,
            hovertemplate=f"{model}: layer {layer}, %{{x}} {donor}<br>%{{y:.0%}} right<extra></extra>",
        )
    return fig


def by_layer(of: HeadStudy, measured: str) -> go.Figure:
    """A panel a layer, with a share as its height."""
    layers = of.ablations.assign(layer="layer " + of.ablations["layer"].astype(str))
    fig, _ = facets(layers, 420, "layer", shared_yaxes=True, horizontal_spacing=0.05)
    fig.update_layout(legend={"y": 1.1}, margin={"t": 90})
    fig.update_yaxes(tickformat=".0%", range=[-0.06, 1.03])
    return fig.update_yaxes(title=measured, col=1)


def named(of: HeadStudy, model: str, layer: int) -> dict:
    """A trace's panel, and its colour and its line of the legend, which all of a model's have in common."""
    colour = PALETTE[list(of.ablations["model"].unique()).index(model) % len(PALETTE)]
    legend = {"name": model, "legendgroup": model, "showlegend": bool(layer == 0)}
    return {**legend, "line": {"color": colour}, "row": 1, "col": 1 + int(layer)}
