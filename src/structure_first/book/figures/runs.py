"""What was measured while training: curves, the share of seeds that have jumped, and where each seed ends."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.analysis.comparison import FEWEST_SEEDS
from structure_first.book.figures.style import looks, meant, plain

HAIR = 0.006  # of all seeds: between lines that else lay on one another


def jump_curves(
    rows: pd.DataFrame, cells: Sequence[str] | None = None, metric: str = "accuracy", stage: int = 2
) -> go.Figure:
    """A metric against the step, a thin line for every seed; `cells` says which and in what order (None: all)."""
    rows = rows[(rows["metric"] == metric) & (rows["stage"] == stage)].sort_values("step")
    low = "tozero" if metric == "accuracy" else "normal"
    fig = plain(460, xaxis_title="step", yaxis={"title": metric, "rangemode": low})
    for cell, look in looks(sorted(rows["cell"].unique()) if cells is None else cells).items():
        for first, (seed, curve) in enumerate(rows[rows["cell"] == cell].groupby("seed")):
            fig.add_scatter(
                x=curve["step"],
                y=curve["value"].round(4),
                mode="lines",
                line={"width": 1.2, **look},
                opacity=0.85,
                name=cell,
                legendgroup=cell,
                showlegend=first == 0,
                hovertemplate=f"{cell}, seed {seed}<br>step %{{x}}: %{{y:.3f}}<extra></extra>",
            )
    return fig


def share_jumped(
    times: pd.Series, horizon: int | pd.Series, threshold: float, cells: Sequence[str] | None = None
) -> go.Figure:
    """The share of each cell's seeds that reached `threshold` by each step, up to `horizon` (for all, or by cell).

    `times` has the index (cell, seed) and is infinite where a seed never did; it counts as one that has not jumped. Of
    the `cells` (None: all) those are drawn that have run, each a hair above the next, lest one hide another.
    """
    if cells is not None:
        times = times[times.index.isin(cells, level="cell")]
    fig = plain(400, xaxis_title="step", yaxis_title=f"share of seeds at {threshold:.0%} accuracy")
    ends = pd.Series(horizon, index=times.index.unique("cell"))
    jumped = times <= ends.reindex(times.index.get_level_values("cell")).to_numpy()
    shares = jumped.groupby("cell").mean().sort_values(ascending=False, kind="stable")
    own = looks(sorted(shares.index))  # whatever the rows say, a cell has the same line
    for place, cell in enumerate(reversed(shares.index)):
        steps, end = np.sort(times[cell].to_numpy(dtype=float)), ends[cell]
        seeds, steps = len(steps), steps[steps <= end]
        done = np.arange(len(steps) + 1)
        fig.add_scatter(
            x=[0, *steps, end],
            y=np.append(done, done[-1]) / seeds + HAIR * place,
            mode="lines",
            line={"shape": "hv", **own[cell]},
            name=f"{cell} ({seeds} seed{'s' * (seeds != 1)})",
            text=[f"{n} of {seeds} seeds" for n in (*done, done[-1])],
            hovertemplate=f"{cell}<br>%{{text}} by step %{{x}}<extra></extra>",
        )
    fig.update_layout(legend={"traceorder": "reversed"})
    fig.update_yaxes(range=[-0.03, 1.03 + HAIR * len(shares)], tickformat=".0%")
    return fig.update_xaxes(range=[0, ends.max()])


def seed_dots(final: pd.Series, metric: str = "accuracy", reached: pd.Series | None = None) -> go.Figure:
    """The final value of every seed as a dot, the median of three or more as a bar, cells from best to worst; index
    (cell, seed).

    `reached` says of each seed whether it has jumped: how many have stands by the name, and comes first in the order.
    """
    medians = final.groupby("cell").median().sort_values(ascending=False, kind="stable")
    names = {cell: f"{cell} " for cell in medians.index}
    if reached is not None:
        jumped = reached.groupby("cell").agg(["sum", "count"]).loc[medians.index]
        medians = medians[(-jumped["sum"] / jumped["count"]).sort_values(kind="stable").index]
        names = {cell: f"{cell} <br><b>{jumped['sum'][cell]} of {jumped['count'][cell]}</b> " for cell in medians.index}
    fig = plain(110 + (30 if reached is None else 38) * len(medians), xaxis_title=metric, showlegend=False)
    for row, cell in enumerate(medians.index):
        values, colour = final[cell], meant(cell)
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
        fig.add_scatter(
            x=values,
            y=row + spread,
            mode="markers",
            marker={"color": colour, "size": 7, "opacity": 0.75},
            name=cell,
            text=[f"{cell}, seed {seed}" for seed in values.index],
            hovertemplate="%{text}: %{x:.3f}<extra></extra>",
        )
        if len(values) < FEWEST_SEEDS:
            continue  # between two seeds there is none
        fig.add_scatter(
            x=[medians[cell]] * 2,
            y=[row - 0.34, row + 0.34],
            mode="lines",
            line={"color": colour, "width": 3},
            name=f"{cell}, median",
            hovertemplate=f"{cell}: median of {len(values)} seeds %{{x:.3f}}<extra></extra>",
        )
    ticks = {"tickvals": list(range(len(names))), "ticktext": [names[cell] for cell in medians.index]}
    return fig.update_yaxes(**ticks, range=[len(names) - 0.5, -0.5], showgrid=False)
