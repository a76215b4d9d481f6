"""Chapters 05 and 06: what a gain on text is held against: how well its front was learnt, other measures, its noise."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from structure_first.analysis.published import (
    ALIKE,
    LEAD,
    SHARES,
    STEPS,
    TOLD,
    climbed,
    ends,
    every_size,
    published,
    sized,
)
from structure_first.analysis.stored import RESULTS, ended
from structure_first.evidence.statistics import needed, told
from structure_first.experiments.as_published import Choice, size
from structure_first.experiments.published import PUBLISHED
from structure_first.experiments.published_tuning import first_weights


def learnt(rows: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """How well *set* was learnt before each step of the ladder, a line a width, of the rows of every size; a seed
    counts once, whatever corpora its stage one stands before.
    """
    mastery = pd.concat(rows).query("metric == 'mastery' and front == 'set' and carried == 'full' and share.isna()")
    mastery = mastery.astype({"width": int}).replace({"swept": {PUBLISHED: STEPS[0]}})
    by_seed = mastery.groupby(["width", "swept", "seed"])["value"].median().reset_index()
    table = by_seed.pivot_table("value", "width", "swept", "median")
    return table[[step for step in STEPS if step in table]].map("{:.0%}".format, na_action="ignore").fillna("")


def rates(last: pd.DataFrame) -> pd.DataFrame:
    """Where random init of a start ends at each rate that was tried, over the seeds that ran at all of them, of the
    `published.ends`; a line a rate, of the starts that had several.
    """
    cold, lines = last[last["front"] == "random init"], []
    for (text, start), here in cold.assign(text=sized(cold)).groupby(["text", "swept"], sort=False):
        by_rate = here.pivot(index="seed", columns="amount", values="loss").dropna()
        if by_rate.empty or by_rate.shape[1] < 2:
            continue
        for rate, losses in by_rate.items():
            end = f"{losses.median():.3f}"
            lines.append({"text": text, "start": start, "rate": f"{rate:g}", "ends at": end, "seeds": len(losses)})
    return pd.DataFrame(lines, columns=["text", "start", "rate", "ends at", "seeds"]).set_index(["text", "start"])


def sought(rows: pd.DataFrame) -> pd.DataFrame:
    """Where random init ends from every choice of `published_tuning`, a line each, a column a rate."""
    last = ended(rows, "loss").astype({"width": int}).sort_values("cell")
    named = last.assign(text=sized(last), rate="at " + last["amount"].map("{:g}".format))
    table = named.pivot_table("loss", ["text", "swept"], "rate", "median", sort=False)
    table = table.map("{:.3f}".format, na_action="ignore").fillna("")
    return table[sorted(table)].rename_axis(index={"swept": "from"})


def sought_said(rows: pd.DataFrame) -> str:
    """On each text the choice from which random init ends lowest, and how much lower than the ladder's wider start."""
    at = Choice().of(size(rows["scale"].iloc[0]))
    lines, wider = [], first_weights(at.body)
    for corpus, tried in ended(rows, "loss").groupby("task", sort=False):
        ends = tried.groupby(["swept", "amount"])["loss"].median()
        (start, rate), lowest = ends.idxmin(), ends.min()
        less = ends[wider, at.corpora[corpus].stage.lr] - lowest
        than = f"{less:.3f} lower than the ladder's wider start" if less else "the ladder's wider start"
        lines.append(
            f"- **{corpus}**: of {len(ends)} choices lowest from {start} at {rate:g}, {lowest:.3f} nats, {than}"
        )
    return "\n".join(lines)


def by_measure(corpus: str, results: Path = RESULTS) -> pd.DataFrame:
    """What *set* and its twin are worth at each step of a corpus' ladder, by loss and by what is right."""
    lines = {}
    for metric, name in {"loss": "loss", **SHARES}.items():
        ladder = climbed(ends(every_size(results, metric)))
        for step, here in ladder[ladder["task"] == corpus].groupby("step"):
            gains = here.pivot(index="seed", columns="label", values="gain").reindex(columns=TOLD[:2]).dropna()
            scaled, form, unit = (
                (100 * gains, "{:+z.1f}", "points") if metric in SHARES else (gains, "{:+z.3f}", "nats")
            )
            worth = {label: told(form, scaled[label]) for label in scaled}
            worth[LEAD] = told(form, scaled[TOLD[0]] - scaled[TOLD[1]])
            lines[step, f"{name}, {unit}"] = worth | {"seeds": len(gains)}
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis(["step", "gain in"])
    return table.sort_index(level="step", key=lambda step: step.map(STEPS.index), sort_remaining=False, kind="stable")


def attention_by_place_said(last: pd.DataFrame) -> str:
    """How far the attention of *set* is ahead of its own numbers in random order, in either place, in words; of the
    models of `published.by_place`.
    """
    ahead = []
    for where, here in last[last["task"] == "code"].groupby("where", sort=False):
        losses = here.pivot_table("loss", "seed", "label")
        less = losses["set, attention permuted"] - losses["set, attention"]
        ahead.append(f"{told('{:+z.3f}', less)} {where}")
    return f"On code the attention of *set* is ahead of its own numbers in random order by {', '.join(ahead)}."


def flat_said(evaluations: pd.DataFrame, front: str = "set") -> str:
    """After how much of the text random init is itself as near to its own end as a front's gain, in words."""
    last, lines = published(ends(evaluations)), []
    gained = last[(last["label"] == front) & (last["gain"] > 0)].set_index(ALIKE)["gain"].rename("worth")
    cold = evaluations[(evaluations["front"] == "random init") & (evaluations["step"] > 0)].join(gained, on=ALIKE)
    cold = cold.dropna(subset="worth").assign(target=lambda here: here["target"] + here["worth"])
    for (corpus, width), here in cold.groupby(["task", "width"], sort=False):
        own = needed(here, "text")
        lines.append(
            f"- **{corpus}, width {width}**: random init alone is within *{front}*'s gain of its own final loss after "
            f"{told('{:.0%}', own)} of the text (seeds: {len(own)})"
        )
    return "\n".join(lines)
