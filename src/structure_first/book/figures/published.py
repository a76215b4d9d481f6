"""Chapters 05 and 06: the published recipe on text, and the ladder from it to a tuned baseline."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from structure_first.analysis.axes import UNITS
from structure_first.analysis.published import LEARNT_SMALL, PARTS, PLACES, STEPS, TOLD, sized
from structure_first.book.figures.runs import jump_curves
from structure_first.book.figures.style import DOTTED, GREY, facets, looks, meant
from structure_first.book.figures.text import GAIN, line, lines, stepped, worth

LABELS = ("random init", *TOLD)
STEEP = 0.5  # nats above the end: what lies higher, at the very beginning, would press the lines together


def curves(evaluations: pd.DataFrame, levels: Mapping[str, float] | None = None) -> go.Figure:
    """Held-out loss against the share of the text read, each seed and their median, a panel a corpus and width; the
    dotted line is where random init ends, a dashed one what the last byte alone tells at a scale (`levels`).
    """
    shown = LABELS[:4]
    evaluations = evaluations[evaluations["label"].isin(shown) & (evaluations["step"] > 0)]
    fig, panels = facets(evaluations.assign(size=sized(evaluations)), 430, "size", horizontal_spacing=0.08)
    for at, here in panels:
        for label in [name for name in shown if (here["label"] == name).any()]:
            part = here[here["label"] == label]
            for seed, one in part.groupby("seed"):
                fig.add_scatter(
                    x=one["text"].round(4),
                    y=one["loss"].round(4),
                    mode="lines",
                    line={"color": meant(label), "width": 1},
                    opacity=0.45,
                    name=f"{label}, seed {seed}",
                    hovertemplate=f"{label}, seed {seed}, %{{x:.0%}} of the text: %{{y:.3f}} nats<extra></extra>",
                    showlegend=False,
                    **at,
                )
            middle = part.groupby("text")["loss"].median()
            fig.add_scatter(
                x=middle.index.to_series().round(4),
                y=middle.round(4),
                mode="lines",
                name=label,
                legendgroup=label,
                line={"color": meant(label), "width": 3},
                hovertemplate=f"{label}, median, %{{x:.0%}} of the text: %{{y:.3f}} nats<extra></extra>",
                showlegend=at["col"] == 1,
                **at,
            )
        goal = here["target"].median()
        fig.add_hline(goal, line=DOTTED, **at)
        if level := (levels or {}).get(here["scale"].iloc[0]):
            told = {"annotation_text": "the last byte alone", "annotation_position": "bottom left"}
            fig.add_hline(level, line={"dash": "dash", "color": GREY, "width": 1}, **told, **at)
        highest = here.loc[here["text"] == 1, "loss"].max()
        fig.update_yaxes(range=[here["loss"].min() - 0.03, max(goal, highest) + STEEP], **at)
    fig.update_xaxes(title="share of the text that was read", tickformat=".0%")
    return fig.update_yaxes(title="held-out loss, nats a token", col=1).update_layout(legend={"y": 1.1})


def early(evaluations: pd.DataFrame) -> go.Figure:
    """How far a front is ahead of random init against the update, the reader's seeds over the stored ones."""
    whose = {"stored": "stored seeds", "yours": "your run"}
    rows = evaluations.assign(cell=evaluations["whose"].map(whose), metric="lead", stage=2, value=evaluations["lead"])
    fig = jump_curves(rows, list(whose.values()), "lead").add_hline(0, line=DOTTED)
    fig.update_traces(mode="lines+markers", line={"dash": "solid", "width": 4})
    fig.update_traces(line={"color": GREY, "width": 1.5}, selector={"name": whose["stored"]})
    return fig.update_xaxes(title="updates").update_yaxes(title="lead over random init, nats a token")


def doses(last: pd.DataFrame) -> go.Figure:
    """What *set* and its permuted twin, of one width, are worth against the updates that *set* was trained for, every
    seed a dot.
    """
    names = {"full": "set", "permuted": "set, permuted"}
    last = last[last["front"].eq("set") & last["carried"].isin(names)]
    last = last.assign(name=last["carried"].map(names))
    own: dict[str, dict] = {name: {} for name in names.values()}
    fig = lines(last, 380, "updates", "gain", "name", own, "%{x} updates: %{y:+.3f} nats")
    stepped(fig, last["updates"], "updates of stage one")
    return fig.add_hline(0, line=DOTTED).update_yaxes(title=GAIN, col=1).update_layout(legend={"y": 1.12})


def by_place(last: pd.DataFrame) -> go.Figure:
    """What a front is worth on tokens that the context has shown and on others, a panel a corpus and width."""
    last = last.assign(size=sized(last)).dropna(subset="gain")
    fig = worth(last, "size", "where", PLACES, LABELS[1:3])
    return fig.update_layout(scattermode="group", scattergap=0.6)


def parts(last: pd.DataFrame) -> go.Figure:
    """What a front is worth by what of it goes across, a panel below another for a corpus, width, start and rate; one
    corpus' gains are many times another's.
    """
    own: dict[str, dict] = {label: {"mode": "markers"} for label in PARTS if last["label"].eq(label).any()}
    grid = {"down": "start", "shared_xaxes": True, "vertical_spacing": 0.08}
    height = 110 + 160 * last["start"].nunique()
    fig = lines(last, height, "label", "gain", "label", own, "%{x}: %{y:+.3f} nats", **grid).add_hline(0, line=DOTTED)
    names = [PARTS[label].replace(" ", "<br>", 1) for label in own]
    order = {"categoryorder": "array", "categoryarray": list(own), "range": [-0.5, len(own) - 0.5]}
    fig.update_xaxes(**order, tickvals=list(own), ticktext=names, showgrid=False).update_yaxes(title=GAIN)
    return fig.update_layout(showlegend=False)


def along(models: pd.DataFrame) -> go.Figure:
    """What *set* and its twin are worth along each axis, every seed a dot, a panel for each start and axis."""
    names = models["start"] + ",<br>" + models["swept"].map(UNITS)
    grid: dict = {"across": "panel", "horizontal_spacing": 0.07}
    own: dict[str, dict] = {label: {} for label in LABELS[1:3]}
    fig = lines(models.assign(panel=names), 400, "amount", "gain", "label", own, "%{x}: %{y:+.3f} nats", **grid)
    for column, (_, amounts) in enumerate(models.groupby(names, sort=False)["amount"], 1):
        fig.update_xaxes(type="log", tickvals=sorted(set(amounts)), col=column)
    fig.add_hline(0, line=DOTTED).update_yaxes(title=GAIN, col=1)
    return fig.update_layout(margin={"t": 100}, legend={"y": 1.2})


LOSS, NEEDED = "final loss, nats", "of the text, for its loss"
NEVER = 1.06  # where a share stands that no part of the text was enough for
HOVERS = {LOSS: "%{y:.3f} nats", GAIN: "%{y:+.3f} nats", NEEDED: "%{y:.0%} of the text"}


def ladder(models: pd.DataFrame, whats: tuple[str, ...] = (LOSS, GAIN)) -> go.Figure:
    """A row of panels for each of `whats`, a column for each corpus and width: from step to step, every seed a dot."""
    models = models[models["label"].isin(LABELS)].assign(size=sized(models).str.replace(", ", ",<br>"))
    models = models.assign(step=pd.Categorical(models["step"], STEPS))  # in whose order lines go
    models = models.assign(**{LOSS: models["loss"], GAIN: models["gain"], NEEDED: models["needed"].clip(upper=NEVER)})
    treated = models[models["label"] != "random init"]
    both = pd.concat([(models if what == LOSS else treated).assign(what=what, value=models[what]) for what in whats])
    gaps: dict = {"horizontal_spacing": 0.06, "vertical_spacing": 0.06}
    fig, panels = facets(both, 100 + 260 * len(whats), "size", "what", shared_yaxes="rows", **gaps)
    steps = [step for step in STEPS if models["step"].eq(step).any()]
    axis = {"categoryorder": "array", "categoryarray": steps, "range": [-0.4, len(steps) - 0.6], "automargin": True}
    axis |= {"tickvals": steps, "tickangle": -45}
    for at, here in panels:
        for label, look in looks(LABELS).items():
            look["symbol"] = "diamond-open" if label == LEARNT_SMALL else "circle"  # it stands on one step alone
            hover = f"%{{x}}: {HOVERS[whats[at['row'] - 1]]}"
            line(fig, here[here["label"] == label], "step", "value", label, hover, **look, **at)
        fig.update_xaxes(**axis, showticklabels=at["row"] == len(whats), **at)
        if whats[at["row"] - 1] == LOSS:  # side by side, dots would have their axis begin at zero
            low, high = here["value"].min(), here["value"].max()
            fig.update_yaxes(range=[low - 0.05 * (high - low), high + 0.05 * (high - low)], **at)
    for row, what in enumerate(whats, 1):
        fig.update_yaxes(title=what, row=row, col=1)
        if what == LOSS:  # that of one corpus says nothing about another's
            fig.update_yaxes(matches=None, showticklabels=True, row=row)
        else:
            fig.add_hline(0 if what == GAIN else 1, line=DOTTED, row=row)
        if what == NEEDED:
            ticks = {"tickvals": [0.25, 0.5, 0.75, 1, NEVER], "ticktext": ["25%", "50%", "75%", "all", "never"]}
            fig.update_yaxes(**ticks, row=row)
            for trace in fig.select_traces(row=row):
                never = trace.hovertemplate.replace(HOVERS[what], "never")
                trace.hovertemplate = [never if share > 1 else trace.hovertemplate for share in trace.y]
    fig.update_layout(scattermode="group", scattergap=0.8)  # side by side where they end alike
    return fig.update_layout(margin={"t": 100}, legend={"y": 1 + 0.2 / len(whats)})
