"""Chapter 03's figures and tables: when the seeds jump, and what the heads do that make them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import rearrange
from plotly.subplots import make_subplots

from structure_first.analysis import attention
from structure_first.book import figures
from structure_first.data.batch import Source
from structure_first.data.diagnostics import KEY, QUERY
from structure_first.errors import UserError
from structure_first.evidence.claims import SCALES
from structure_first.evidence.statistics import final, share_interval, steps_to
from structure_first.experiments.haystack import FASTER
from structure_first.model.transfer import Transfer, transfer
from structure_first.model.transformer import Transformer
from structure_first.runs.jobs import Job, initial_model, trained, trained_model
from structure_first.runs.recipe import Experiment
from structure_first.training.devices import device, keep_freed_memory
from structure_first.training.loop import fit

JUMPED = 0.9  # far above any guess: nothing was ever seen to stay between the two
CLAIM = (
    "dyck",
    "identity attention",
    "set attention",
    "shuffled dyck",
    "random tokens",
    "longer training",
    "random init",
)
SIZE = (
    "dyck",
    "dyck permuted",
    "dyck embeddings",
    "identity attention",
    "identity attention permuted",
    "tuned init",
    "wide tied init",
    "wide init",
    "random init",
)
RACE = tuple(f"{cell}{rate}" for cell in ("dyck", "tuned init", "random init") for rate in ("", FASTER))
LOOKS = ("value → key", "query → key", "query → value")
KINDS = ("previous token", "induction", "bracket match", *LOOKS, "copying")
BOTH_WAYS = ((0, "rgba(213,94,0,1)"), (0.5, "rgba(213,94,0,0)"), (0.5, "rgba(15,127,196,0)"), (1, "rgba(15,127,196,1)"))


def largest_scale(rows: pd.DataFrame) -> str:
    """The largest scale that has rows; raises `UserError` where nothing is stored."""
    found = [scale for scale in SCALES if (rows["scale"] == scale).any()]
    if not found:
        raise UserError("this chapter has no stored results; restore book/results or make them: structure-first run")
    return found[0]


def part(times: pd.Series, cells: Sequence[str]) -> pd.Series:
    """The times of those of the `cells` that have run."""
    return times[times.index.get_level_values("cell").isin(cells)]


def horizons(rows: pd.DataFrame) -> pd.Series:
    """For how many steps each cell could train: as many as random init, whose seeds stay to the end, or more."""
    last = rows[rows["stage"] == 2].groupby("cell")["step"].max()
    return last.clip(lower=last["random init"])


def guess(task: Source) -> float:
    """How often a guess among the values shown is right."""
    return float(np.mean([1 / n for n in range(1, task.settings["pairs"] + 1)]))


def curves(rows: pd.DataFrame, cells: Sequence[str], task: Source) -> go.Figure:
    """Accuracy against the step, a line a seed, with the guesser's level."""
    fig = figures.jump_curves(rows, cells)
    fig.add_hline(guess(task), line={"dash": "dot", "color": figures.GREY, "width": 2})
    fig.update_yaxes(range=[0, 1.03], tickformat=".0%")
    return fig


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a cell: seeds, how many jumped and when, final accuracy, and how well its stage one was learnt."""
    times, last, learnt = steps_to(rows, JUMPED), final(rows), final(rows, "mastery")
    learnt = learnt.groupby("cell").median()
    lines = {}
    for cell, seeds in sorted(times.groupby("cell"), key=lambda each: -np.isfinite(each[1]).mean()):
        share, low, high = share_interval(int(np.isfinite(seeds).sum()), len(seeds))
        lines[cell] = {
            "seeds": len(seeds),
            "jumped": f"{share:.0%} [{low:.0%}, {high:.0%}]",
            "median step of the jump": "∞" if np.isinf(seeds.median()) else f"{seeds.median():,.0f}",
            "median accuracy": f"{last[cell].median():.1%}",
            "stage one learnt": f"{learnt[cell]:.1%}" if cell in learnt else "",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


# Inside


def jumped(experiment: Experiment, scale: str, rows: pd.DataFrame, out: Path) -> list[Job]:
    """Every seed that jumped after a stage one, a job each, the earliest first; if none did, the best alone."""
    cells = experiment.recipes(scale)
    warm = rows[[cell in cells and cells[cell].stage_one is not None for cell in rows["cell"]]]
    order = steps_to(warm, JUMPED).sort_values(kind="stable")
    found = list(order[np.isfinite(order)].index) or [final(warm).idxmax()]
    return [Job.of(cell, cells[cell], [int(seed)], out / experiment.name) for cell, seed in found]


def label(job: Job) -> str:
    return f"{job.name}, seed {job.seeds[0]}"


def states(job: Job) -> dict[str, tuple[Transformer, Source]]:
    """The model after stage one, then as stage two found and left it, each with the source of its tokens."""
    task, recipe = job.phase.make(), job.replicas[0].recipe
    found, left = trained_model(job)
    before = trained([replica.before for replica in job.replicas], job.folder)
    return {"after stage one": (before, recipe.stage_one.make()), "as found": (found, task), "as left": (left, task)}


class Looked(NamedTuple):
    """What was measured inside some models; every frame has the columns `model`, `layer` and `head`."""

    scores: pd.DataFrame  # and state, kind, score
    ablations: pd.DataFrame  # and accuracy without the head, lost
    patches: pd.DataFrame  # and part, donor, accuracy with the donor's head, or all of the layer's


def looked(jobs: Sequence[Job], count: int = 400) -> Looked:
    """Every head of every model: its kind, what is lost without it, what stays with an earlier one in its place."""
    scores, ablations, patches = {}, {}, {}
    for job in jobs:
        batch, of = attention.example(job.phase.settings["pairs"], count), states(job)
        for state, (model, source) in of.items():
            scores[label(job), state] = attention.scores(model, source)
        (found, _), (left, _) = of["as found"], of["as left"]
        ablated = attention.ablations(left, batch)
        ablations[label(job)] = ablated.assign(lost=attention.accuracy(left, batch).item() - ablated["accuracy"])
        donors = {
            "as found": found,
            "permuted": transfer(found, left.shape, Transfer(attention="permute"), job.seeds),
            "fresh": Transformer(left.shape, job.seeds),
        }
        for donor, earlier in donors.items():
            patches[label(job), donor] = attention.patches(left, earlier, batch)
    frames = (scores, ["model", "state"]), (ablations, ["model"]), (patches, ["model", "donor"])
    whole = (pd.concat(parts, names=names).reset_index(names) for parts, names in frames)
    return Looked(*(each.reset_index(drop=True) for each in whole))


def carriers(of: Looked) -> pd.DataFrame:
    """For each model and layer the head without which most is lost: what it does, and since when.

    `→` is from how stage two found the head to how it left it.
    """
    worst = of.ablations.loc[of.ablations.groupby(["model", "layer"], sort=False)["lost"].idxmax()]
    score = of.scores.set_index(["model", "layer", "head", "state", "kind"])["score"].sort_index()
    patched = of.patches.set_index(["model", "layer", "head", "part", "donor"])["accuracy"].sort_index()
    lines = {}
    for model, layer, head, lost in worst[["model", "layer", "head", "lost"]].itertuples(index=False):
        of_head, with_heads = score[model, layer, head], patched[model, layer]
        looks = max(LOOKS, key=lambda kind: of_head["as left", kind])
        lines[model, f"layer {layer}"] = {
            "head": head,
            "lost without it": f"{lost:.0%}",
            "looks": f"{looks}: {of_head['as found', looks]:.0%} → {of_head['as left', looks]:.0%}",
            "copies": f"{of_head['as found', 'copying']:.2f} → {of_head['as left', 'copying']:.2f}",
            "copied after stage one": f"{of_head['after stage one', 'copying']:.2f}",
            "accuracy with it as found": f"{with_heads[head, 'both', 'as found']:.0%}",
            "with it permuted": f"{with_heads[head, 'both', 'permuted']:.0%}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["model", "layer"])


def training_maps(job: Job, rows: pd.DataFrame, pairs: int = 6, frames: int = 20) -> go.Figure:
    """Every head's attention on one example, a slider over the training of a model, which is trained again."""
    tokens = attention.example(min(pairs, job.phase.settings["pairs"])).tokens[:, :-1]
    maps = {}

    def watch(step: int, model: Transformer) -> None:
        percent = (100 * attention.patterns(model, tokens)[:, 0, 0]).round().int()
        maps[step] = rearrange(percent, "layer head query key -> (layer head) query key").tolist()

    of_job = rows[(rows["cell"] == job.name) & (rows["seed"] == job.seeds[0]) & (rows["stage"] == job.stage)]
    stage = replace(job.phase.stage, evaluate_every=max(1, int(of_job["step"].max()) // frames))
    keep_freed_memory()
    model = initial_model(job).to(device(job.device))
    rows = fit(model, job.phase.make(), stage, stream=f"stage {job.stage}", label=f"{label(job)}, again", watch=watch)
    right = {row["step"]: row["value"] for row in rows if row["metric"] == "accuracy"}
    fig = head_maps(maps[max(maps)], tokens[0].tolist(), model.shape.layers)
    said = {step: f"{label(job)}, step {step:,}: {right[step]:.0%} right" for step in maps}
    fig.update_layout(title={"text": said[max(maps)], "font": {"size": 15}})
    steps = [
        {"label": f"{step:,}", "method": "update", "args": [{"z": maps[step]}, {"title.text": said[step]}]}
        for step in maps
    ]
    place = {"active": len(steps) - 1, "currentvalue": {"prefix": "step "}, "pad": {"t": 45}}
    return fig.update_layout(sliders=[{"steps": steps, **place}])


def head_maps(percent: Sequence[Sequence[Sequence[int]]], tokens: Sequence[int], layers: int) -> go.Figure:
    """Attention on a haystack, a panel a head and a row a layer, with rings where recall has to look.

    That is, in the first layer from each value at its key, in the others from the query at the value it asks for.
    """
    names, heads, end = [written(token) for token in tokens], len(percent) // layers, len(tokens) - 1
    asked = attention.asked(torch.tensor([tokens])).item()
    names[asked + 1] = f"<b>▶{names[asked + 1]}</b>"
    needed = [(value, value - 1) for value in range(1, end, 2)], [(end, asked + 1)]
    titles = [f"layer {layer}, head {head}" for layer in range(layers) for head in range(heads)]
    gaps = {"horizontal_spacing": 0.02, "vertical_spacing": 0.35 / (layers + 1)}
    fig = make_subplots(layers, heads, subplot_titles=titles, shared_yaxes=True, **gaps)
    fig.update_layout(template=figures.TEMPLATE, height=190 + 230 * layers, margin={"t": 85, "l": 45})
    said = [[f"{query} looks at {key}" for key in names] for query in names]
    for number, weights in enumerate(percent):
        panel = {"row": 1 + number // heads, "col": 1 + number % heads}
        scale = {"colorscale": figures.INK, "zmin": 0, "zmax": 100, "showscale": False}
        fig.add_heatmap(z=weights, text=said, hovertemplate="%{text}: %{z} %<extra></extra>", **scale, **panel)
        for query, key in needed[number >= heads]:
            corners = {"x0": key - 0.5, "x1": key + 0.5, "y0": query - 0.5, "y1": query + 0.5}
            fig.add_shape(type="rect", line={"color": figures.PALETTE[1], "width": 1.5}, **corners, **panel)
    fig.update_annotations(font_size=12)
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "tickfont": {"size": 9}, "showgrid": False}
    fig.update_xaxes(tickangle=-90, **ticks)
    return fig.update_yaxes(range=[end + 0.5, -0.5], **ticks)


def written(token: int) -> str:
    """A key as a letter, the query for it with a question mark, a value as a number."""
    if token < KEY:
        return str(token)
    return ascii_letters.swapcase()[(token - KEY) % (QUERY - KEY)] + "?" * (token >= QUERY)


def kinds(of: Looked) -> go.Figure:
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
    fig.update_layout(template=figures.TEMPLATE, height=500, margin=margin, updatemenus=[menu])
    fig.update_xaxes(tickangle=-45, showgrid=False)
    return fig.update_yaxes(autorange="reversed", showgrid=False)


def losses(of: Looked) -> go.Figure:
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


def origins(of: Looked) -> go.Figure:
    """The accuracy with all heads of a layer as stage two found them, a disc a model, and with the controls' heads."""
    fig = by_layer(of, "accuracy")
    layers = of.patches[of.patches["head"] == attention.ALL]
    for (model, layer, donor), group in layers.groupby(["model", "layer", "donor"], sort=False):
        style = named(of, model, layer)
        if donor != "as found":
            symbol = {"permuted": "cross-thin", "fresh": "x-thin"}[donor]
            style |= {"marker": {"symbol": symbol, "size": 9, "line": {"color": figures.GREY, "width": 2}}}
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


def origins_said(of: Looked) -> str:
    """What `origins` shows, in the median over the models, in words."""
    layers = of.patches[of.patches["head"] == attention.ALL]
    medians = layers.groupby(["layer", "part", "donor"], sort=False)["accuracy"].median().unstack("donor")
    said = [
        f"layer {layer}: "
        + ", ".join(f"{part} {line['as found']:.0%} ({line['permuted']:.0%})" for (_, part), line in parts.iterrows())
        for layer, parts in medians.groupby("layer")
    ]
    many = of.patches["model"].nunique()
    return f"Median accuracy of {many} model{'s' * (many > 1)} (with permuted weights): {'; '.join(said)}."


def by_layer(of: Looked, measured: str) -> go.Figure:
    """A panel a layer, with a share as its height."""
    titles = [f"layer {layer}" for layer in of.ablations["layer"].unique()]
    fig = make_subplots(1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    fig.update_layout(template=figures.TEMPLATE, height=420, legend={"y": 1.1}, margin={"t": 90})
    fig.update_yaxes(tickformat=".0%", range=[-0.06, 1.03])
    return fig.update_yaxes(title=measured, col=1)


def named(of: Looked, model: str, layer: int) -> dict:
    """A trace's panel, and its colour and its line of the legend, which all of a model's have in common."""
    colour = figures.PALETTE[list(of.ablations["model"].unique()).index(model) % len(figures.PALETTE)]
    legend = {"name": model, "legendgroup": model, "showlegend": bool(layer == 0)}
    return {**legend, "line": {"color": colour}, "row": 1, "col": 1 + int(layer)}
