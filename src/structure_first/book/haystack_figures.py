"""Chapter 03's figures and tables: when the seeds jump, and where the query looks before and after."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from structure_first.book import figures
from structure_first.data.batch import Source
from structure_first.evidence import attention
from structure_first.evidence.claims import SCALES
from structure_first.evidence.statistics import final, share_interval, steps_to
from structure_first.experiments.recipe import Experiment
from structure_first.experiments.runner import Job, trained_model
from structure_first.model.transformer import Transformer

JUMPED = 0.9  # far above any guess: nothing was ever seen to stay between the two


def largest_scale(rows: pd.DataFrame) -> str:
    """The largest scale that has rows."""
    return next(scale for scale in SCALES if (rows["scale"] == scale).any())


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


def before_and_after(
    experiment: Experiment, scale: str, rows: pd.DataFrame, out: Path
) -> tuple[Transformer, Transformer, str]:
    """One seed's model as stage two found it and as it left it, and its cell: of those with a stage one, the best."""
    cells = experiment.cells(scale)
    last = final(rows)
    last = last[[cells[cell].first is not None for cell in last.index.get_level_values("cell")]]
    cell, seed = last.idxmax()
    job = Job(cell, cells[cell], 2, (int(seed),), out / experiment.name)
    return *trained_model(job), cell


def query_attention(model: Transformer, pairs: int) -> go.Figure:
    """Where the last position of one sequence looks, a row a head."""
    batch = attention.example(pairs)
    shown = batch.tokens[0, 0].tolist()
    key = shown.index(shown[-1] - 30)
    names = [chr(ord("A") + token - 128) if token >= 128 else str(token) for token in shown[:-1]]
    names[key + 1] = f"<b>▶{names[key + 1]}</b>"
    names.append(f"{chr(ord('A') + shown[-1] - 158)}?")
    pattern = np.concatenate([layer[0, 0, :, -1:].numpy() for layer in attention.patterns(model, batch)])
    fig = figures.attention_map(pattern, names, [names[-1]])
    heads = pattern.shape[0] // model.shape.layers
    labels = [f"layer {row // heads}, head {row % heads}" for row in range(len(pattern))]
    fig.update_yaxes(ticktext=labels)
    return fig


def looks(before: pd.DataFrame, after: pd.DataFrame) -> go.Figure:
    """Each head's attention to the token it would need, before and after."""
    fig = figures.plain(380, yaxis={"title": "share of attention", "range": [0, 1]}, barmode="group")
    for number, (name, group) in enumerate(after.groupby("from", sort=False)):
        heads = [f"L{layer} H{head}" for layer, head in zip(group["layer"], group["head"], strict=True)]
        colour = figures.PALETTE[number]
        earlier = before[before["from"] == name]["share"]
        for values, when, opacity in ((earlier, "before", 0.4), (group["share"], "after", 1.0)):
            fig.add_bar(
                x=heads,
                y=values,
                name=f"{name}, {when}",
                marker={"color": colour, "opacity": opacity},
                hovertemplate=f"%{{x}}<br>{name}, {when}: %{{y:.3f}}<extra></extra>",
            )
    return fig
