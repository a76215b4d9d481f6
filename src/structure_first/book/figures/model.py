"""The model and the trainer: where attention looks and FLOPs go, and schedules."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from structure_first.book.figures.style import DASHES, INK, TEMPLATE, plain
from structure_first.training.stage import Stage


def attention_map(pattern: Float[np.ndarray, "head query key"], tokens: Sequence[str]) -> go.Figure:
    """Where each head looks, a panel a head; `tokens` stand there, as queries and as keys."""
    heads = [f"head {head}" for head in range(len(pattern))]
    across, down = min(len(heads), 2), -(-len(heads) // 2)
    side, gap = 40 + 15 * min(len(tokens), 20), 65  # pixels
    between_rows = gap / (down * side + (down - 1) * gap) if down > 1 else 0
    fig = make_subplots(down, across, subplot_titles=heads, horizontal_spacing=0.14, vertical_spacing=between_rows)
    fig.update_layout(template=TEMPLATE, height=80 + down * (side + gap) - gap, margin={"t": 35, "b": 45})
    for number, (head, weights) in enumerate(zip(heads, pattern, strict=True)):
        fig.add_heatmap(
            z=weights.round(4),
            text=[[f"{head}: {query} looks at {key}" for key in tokens] for query in tokens],
            hovertemplate="%{text} (position %{x})<br>weight %{z:.3f}<extra></extra>",
            colorscale=INK,
            zmin=0,
            zmax=1,
            showscale=False,
            row=number // across + 1,
            col=number % across + 1,
        )
    ticks = {"tickvals": list(range(len(tokens))), "ticktext": list(tokens), "showgrid": False}
    return fig.update_xaxes(**ticks).update_yaxes(autorange="reversed", **ticks)


def flops_bars(parts: Mapping[str, int]) -> go.Figure:
    """Where the FLOPs go: a bar a part, the largest first, each with its share of the whole."""
    ordered = sorted(parts.items(), key=lambda part: part[1])
    whole = sum(parts.values())
    fig = plain(100 + 36 * len(parts), xaxis={"title": "FLOPs", "exponentformat": "SI"}, margin={"r": 70})
    return fig.add_bar(
        x=[flops for _, flops in ordered],
        y=[f"{part} " for part, _ in ordered],
        orientation="h",
        text=[f"{flops / whole:.0%}" for _, flops in ordered],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:,} FLOPs, %{text}<extra></extra>",
    )


def schedules(stages: Mapping[str, Stage]) -> go.Figure:
    """The learning rate at every step, a line for each stage."""
    fig = plain(340, xaxis_title="step", yaxis={"title": "learning rate", "rangemode": "tozero"})
    for (name, stage), dash in zip(stages.items(), cycle(DASHES), strict=False):
        steps = np.unique(np.linspace(0, stage.steps - 1, 201, dtype=int))
        fig.add_scatter(
            x=steps,
            y=[stage.lr_at(int(step)) for step in steps],
            mode="lines",
            name=name,
            line={"dash": dash},
            hovertemplate=f"{name}<br>step %{{x}}: %{{y:.2e}}<extra></extra>",
        )
    return fig
