"""What the sources hold: sequences as coloured cells, automata, and how brackets pair."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
import torch
from einops import rearrange
from plotly.subplots import make_subplots

from structure_first.analysis.sequences import mutual_information, partners
from structure_first.book.figures.style import CLEAR, GREY, INK, PALETTE, TEMPLATE, looks, plain, show
from structure_first.book.figures.tokens import origins, shades, silent, words
from structure_first.data.batch import Batch, Source
from structure_first.data.registry import defaults, describe, source
from structure_first.seeding import generator

DRAWN = 4  # sequences of a gallery


def gallery(of: Source, seed: int = 0, statistics_of: int = 20_000) -> go.Figure:
    """A source at a glance: some sequences as coloured cells, and which positions tell of which.

    Hollow cells are given, filled ones bear loss. The triangle holds the mutual information of each two positions,
    estimated from `statistics_of` sequences; the strongest tie has the full colour, unless all are weak.
    """
    batch = of.draw(DRAWN, generator("cpu", seed))
    fig = make_subplots(1, 2, column_widths=[0.73, 0.27], horizontal_spacing=0.05)
    fig.update_layout(template=TEMPLATE, height=230, barmode="overlay", margin={"l": 5, "t": 30, "b": 40, "r": 50})
    fig.update_layout(font={"size": 11})
    fig.add_traces(cells(of, batch))
    fig.add_traces(arrows(of, batch))
    bits = mutual_information(of.draw(statistics_of, generator("cpu", seed, "statistics")).tokens)
    earlier = np.where(np.tri(of.length, k=-1, dtype=bool), bits, np.nan)
    full = max(np.nanmax(earlier), bits.diagonal().max() / 10)
    triangle = go.Heatmap(
        z=np.sqrt(earlier / full).round(3),  # the square root shows weak ties too
        customdata=earlier.round(3),
        hovertemplate="position %{x} tells %{customdata} bits of position %{y}<extra></extra>",
        colorscale=INK,
        zmin=0,
        zmax=1,
        showscale=False,
    )
    fig.add_trace(triangle, 1, 2)
    fig.update_xaxes(showgrid=False, row=1, col=1)
    fig.update_yaxes(visible=False, range=[DRAWN - 0.45, -0.55], row=1, col=1)
    fig.update_xaxes(title="position that tells", showgrid=False, row=1, col=2)
    fig.update_yaxes(title="of position", side="right", autorange="reversed", showgrid=False, row=1, col=2)
    stacked = {"xaxis": [0, 1], "yaxis": [0.62, 1], "xaxis2": [0.2, 1], "yaxis2": [0, 0.45]}
    narrow = {"height": 460, "font": {"size": 10}} | {axis: {"domain": domain} for axis, domain in stacked.items()}
    return fig.update_layout(meta={"narrow": narrow})


def cells(of: Source, batch: Batch) -> list[go.Bar | go.Scatter]:
    """A batch as rows of cells, one trace a role, and what is written in them."""
    written, colours = words(of), shades(of)
    tokens, bears_loss = batch.tokens.numpy(), batch.loss_mask.numpy()
    roles = np.where(bears_loss, "predicted", "given")
    for role, token in silent(of).items():
        roles[~bears_loss & (tokens == token)] = role
    traces = []
    for role in ("given", "separator", "predicted", "pad"):
        row, column = np.nonzero(roles == role)
        if not len(row):
            continue
        inside = tokens[row, column]
        edge, text = [colours[token] for token in inside], [written[token] for token in inside]
        filled = role == "predicted"
        said = f"bears {'loss' if filled else 'no loss'}"
        traces += [
            go.Bar(
                x=column,
                y=np.full(len(row), 0.7),
                base=row - 0.35,
                width=0.82,
                name=role,
                marker={
                    "color": edge if filled else CLEAR,
                    "line": {"color": edge, "width": 1.5 if role != "pad" else 0},
                },
                customdata=text,
                hovertemplate=f"position %{{x}}: token %{{customdata}}<br>{role}, {said}<extra></extra>",
            ),
            go.Scatter(
                x=column,
                y=row,
                text=text,
                mode="text",
                textfont={"color": "#ffffff"} if filled else {},
                hoverinfo="skip",
                showlegend=False,
            ),
        ]
    return traces


def arrows(of: Source, batch: Batch) -> list[go.Scatter]:
    """From each place that tells the answer to the answer, above the cells of a sequence: a trace for all."""
    x, y = [], []
    for row, tokens in enumerate(batch.tokens.tolist()):
        for tells, told in origins(of, tokens):
            x += [tells, tells, told, told, None]
            y += [row - 0.36, row - 0.48, row - 0.48, row - 0.36, None]
    head = {"symbol": "arrow", "angleref": "previous", "size": [0, 0, 0, 9, 0] * (len(x) // 5), "color": PALETTE[1]}
    line = {"color": PALETTE[1], "width": 1.5}
    told_by = {"mode": "lines+markers", "name": "tells the answer", "hoverinfo": "skip"}
    return [go.Scatter(x=x, y=y, line=line, marker=head, **told_by)] if x else []


def exhibit(name: str, statistics_of: int = 20_000, **settings) -> None:
    """Show a source's `gallery`, its rule as the caption and with it what its sequences hold."""
    of = source(name, **settings)
    tokens, loss_mask = of.draw(statistics_of, generator("cpu", 0, "statistics"))
    share = tokens[loss_mask].bincount().double() / loss_mask.sum()
    bits = -(share[share > 0].log2() * share[share > 0]).sum()
    first = of.draw(DRAWN, generator("cpu", 0)).tokens[0]
    left = {setting: value for setting, value in defaults(name).items() if value in (0, 1)}  # switches, not turned
    given = ", ".join(f"{setting} {value}" for setting, value in of.settings.items() if value != left.get(setting))
    show(
        gallery(of, statistics_of=statistics_of),
        alt=f"Sequences of {name} as rows of cells, the first: {' '.join(words(of)[token] for token in first)}. "
        + "Arrows lead from the places that tell the answer to the answer. " * bool(origins(of, first.tolist()))
        + "Beside them, a triangle shows how much each position tells of each later one.",
        caption=f"{name}: {describe(name)} Teaches {of.teaches}. Here with {given}: {of.length} tokens, of which "
        f"{loss_mask.sum() / statistics_of:.3g} bear loss; for a model that knows only how frequent each token is, "
        f"each of these costs {bits:.2f} bits.",
    )


def answer_lengths(sources: Iterable[Source], count: int = 20_000) -> go.Figure:
    """How many tokens bear loss, as a distribution over sequences: one line a source."""
    fig = plain(320, xaxis_title="tokens in the answer", yaxis_title="share of sequences", yaxis_rangemode="tozero")
    for size, of in zip(cycle((11, 6, 4)), sources, strict=False):
        share = of.draw(count, generator("cpu", 0)).loss_mask.sum(1).bincount() / count
        lengths = np.flatnonzero(share)
        fig.add_scatter(
            x=lengths,
            y=share[lengths].numpy(),
            name=of.name,
            mode="lines+markers",
            marker={"size": size},
            hovertemplate=f"{of.name}: %{{x}} tokens in %{{y:.1%}}<extra></extra>",
        )
    return fig


def automaton(rules: Sequence[int] = (30, 90, 110, 184), width: int = 151, steps: int = 75, seed: int = 0) -> go.Figure:
    """Elementary automata from one random state, time running downwards; a slider over the rules."""
    fig = plain(480, margin={"l": 50, "r": 10, "t": 30, "b": 90})
    for rule in rules:
        bits = source("eca", rule=rule, width=width, length=width * steps).draw(1, generator("cpu", seed)).tokens
        fig.add_heatmap(
            z=rearrange(bits, "1 (step cell) -> step cell", cell=width).byte().numpy(),
            colorscale=INK,
            showscale=False,
            visible=rule == rules[0],
            hovertemplate=f"rule {rule}, step %{{y}}, cell %{{x}}: %{{z}}<extra></extra>",
        )
    choices = [
        {"label": str(rule), "method": "restyle", "args": ["visible", [each == rule for each in rules]]}
        for rule in rules
    ]
    fig.update_layout(sliders=[{"steps": choices, "currentvalue": {"prefix": "rule "}, "pad": {"t": 30}}])
    fig.update_xaxes(title="cell", showgrid=False)
    return fig.update_yaxes(title="step", autorange="reversed", showgrid=False)


def neural(rules: int = 4, seed: int = 0) -> go.Figure:
    """Neural cellular automata, each a rule of its own, side by side; a slider over their grids."""
    of = source("nca")
    width, states, patch = (of.settings[name] for name in ("width", "states", "patch"))
    drawn = of.draw(rules, generator("cpu", seed)).tokens
    tokens = rearrange(drawn, "rule (grid t) -> grid rule t", grid=of.settings["grids"])
    digits = tokens[..., 1:-1, None] // states ** torch.arange(patch * patch) % states
    together = "grid rule (down across) (i j) -> grid rule (down i) (across j)"
    cells = rearrange(digits, together, i=patch, down=width // patch).byte().numpy()
    fig = make_subplots(1, rules, subplot_titles=[f"rule {rule + 1}" for rule in range(rules)], horizontal_spacing=0.03)
    for rule, grid in enumerate(cells[0], 1):
        hover = f"rule {rule}: state %{{z}}<extra></extra>"
        fig.add_heatmap(
            z=grid, zmin=0, zmax=states - 1, colorscale=INK, showscale=False, hovertemplate=hover, col=rule, row=1
        )
    choices = [
        {"label": str(step), "method": "restyle", "args": [{"z": [grid.tolist() for grid in grids]}]}
        for step, grids in enumerate(cells, 1)
    ]
    fig.update_layout(template=TEMPLATE, height=330, margin={"l": 10, "r": 10, "t": 30, "b": 90})
    fig.update_layout(sliders=[{"steps": choices, "currentvalue": {"prefix": "grid "}, "pad": {"t": 20}}])
    fig.update_xaxes(visible=False, constrain="domain")
    for rule in range(1, rules + 1):
        fig.update_yaxes(visible=False, autorange="reversed", scaleanchor=f"x{rule}", col=rule)
    return fig


def depth_path(of: Source, seed: int = 0, others: int = 40) -> go.Figure:
    """A word as a mountain path, up for an opener and down for a closer, before the paths of other words."""
    tokens, k = of.draw(1 + others, generator("cpu", seed)).tokens, int(of.settings["k"])
    depth = np.pad(torch.where(tokens < k, 1, -1).cumsum(1).numpy(), ((0, 0), (1, 0)))
    places = np.arange(of.length + 1)
    fig = plain(380, xaxis_title="position", yaxis_title="open brackets")
    fig.add_scatter(
        x=np.tile(np.append(places, np.nan), others),  # a gap after each
        y=np.pad(depth[1:].astype(float), ((0, 0), (0, 1)), constant_values=np.nan).ravel(),
        mode="lines",
        line={"color": GREY, "width": 0.7},
        opacity=0.5,
        name=f"{others} other words",
        hoverinfo="skip",
    )
    word, partner, written, colours = tokens[0].tolist(), partners(tokens[0].tolist(), k), words(of), shades(of)
    hover = [
        f"position {t}: {written[token]}  {'closed' if token < k else 'opened'} at {partner[t]}"
        if partner[t] is not None
        else f"position {t}: {written[token]}  has no partner"
        for t, token in enumerate(word)
    ]
    fig.add_scatter(
        x=places,
        y=depth[0],
        mode="lines+markers",
        name="one word",
        line={"color": PALETTE[0], "width": 1.5},
        marker={"size": 6, "color": [PALETTE[0], *(colours[token] for token in word)]},
        text=["the beginning", *hover],
        hovertemplate="%{text}<br>then %{y} open<extra></extra>",
    )
    return fig


def match_distances(sources: Iterable[Source], count: int = 500) -> go.Figure:
    """How far back a closer finds its opener: the share of closers by distance, one line a source.

    A closer before which no opener of its type is open finds none at any distance, so its line ends below one.
    """
    ticks = [step * 10**power for power in range(5) for step in (1, 2, 5)]
    fig = plain(360, yaxis_title="closers that found an opener")
    fig.update_xaxes(title="tokens back, at most", type="log", tickvals=ticks)
    sources = list(sources)
    for of, look in zip(sources, looks(of.name for of in sources).values(), strict=True):
        k, distances, closers = int(of.settings["k"]), Counter[int](), 0
        for word in of.draw(count, generator("cpu", 0)).tokens.tolist():
            closing = [(t, partner) for t, partner in enumerate(partners(word, k)) if word[t] >= k]
            closers += len(closing)
            distances.update(t - opener for t, opener in closing if opener is not None)
        back = sorted(distances)
        fig.add_scatter(
            x=[*back, of.length],
            y=np.append(np.cumsum([distances[d] for d in back]), distances.total()) / closers,
            name=of.name,
            mode="lines",
            line={"shape": "hv", **look},
            hovertemplate=f"{of.name}: %{{y:.0%}} within %{{x}} tokens<extra></extra>",
        )
    return fig.update_yaxes(range=[0, 1.03], tickformat=".0%")
