"""The ledger: every claim of the paper beside what the stored rows say. A verdict is computed, never typed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from structure_first.analysis.stored import of_today
from structure_first.errors import UserError, unknown
from structure_first.evidence.statistics import final, interval, needed
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.runs.recipe import Cell, Experiment, Recipe
from structure_first.scales import SCALES

ENOUGH_SEEDS = 6  # with five, even the range from the lowest to the highest misses the median more often than 1 in 20


@dataclass(frozen=True)
class Entry:
    """A line of the ledger; `measured`, `low` and `high` are null where nothing has run."""

    id: str
    statement: str
    paper: str
    measured: float | None = None  # the gain of the treated cell over its control, median over seeds
    low: float | None = None  # of the gain's 95 % interval
    high: float | None = None
    seeds: int = 0
    scale: str | None = None
    verdict: str = "not yet run"

    def gain(self, digits: int = 3, ends: str = "({} to {})") -> str:
        """The gain and its interval, `none` for what not even all of the text was enough for; empty if not yet run."""
        if self.measured is None:
            return ""
        middle, *both = (f"{value:+.{digits}f}" for value in (self.measured, self.low, self.high))
        return f"{middle} {ends.format(*both)}".replace("-inf", "none")


def ledger(claims: Path, results: Path) -> list[Entry]:
    """Every claim of the file `claims`, answered from the stores under `results`; raises `UserError` if broken."""
    try:
        return [_answer(claim, Path(results)) for claim in yaml.safe_load(Path(claims).read_text())]
    except FileNotFoundError:
        hint = "go to the folder of the book, or name the list with --ledger"
        raise UserError(f"cannot read the claims in {claims}: there is no such file; {hint}") from None
    except KeyError as error:
        raise UserError(f"cannot read the claims in {claims}: a claim or its query lacks {error}") from None
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read the claims in {claims}: {' '.join(str(error).split())}") from None


def as_json(entries: list[Entry]) -> list[dict[str, Any]]:
    """The entries as plain objects; JSON has no infinity, so what is not finite is null."""
    return [
        {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in entry.items()}
        for entry in map(asdict, entries)
    ]


def answers(entries: list[Entry], ids: tuple[str, ...], unit: str = "nats a token") -> pd.DataFrame:
    """The ledger's lines for these claims, and in what they are measured."""
    by_id = {entry.id: entry for entry in entries}
    lines = {
        entry.statement: {
            "paper": entry.paper,
            f"measured, {unit}": entry.gain(),
            "seeds": entry.seeds or "",
            "verdict": entry.verdict,
        }
        for entry in map(by_id.__getitem__, ids)
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("claim")


def _answer(claim: dict, results: Path) -> Entry:
    unanswered = Entry(claim["id"], claim["statement"], claim["paper"])
    query = claim.get("query")
    if not query:
        return unanswered
    if not query["compare"]:
        raise ValueError(f"{claim['id']} compares nothing; name pairs of cells under compare")
    experiment = _checked(claim["id"], query)
    answers = [
        _entry(unanswered, gains, scale, query["reproduced_from"])
        for scale, rows in of_today(experiment, results).items()
        if (gains := _gains(rows, query, experiment.cells(scale)))
    ]
    enough = [entry for entry in answers if entry.seeds >= ENOUGH_SEEDS]
    return next(iter(enough + answers), unanswered)


def _checked(claim: str, query: dict) -> Experiment:
    """The experiment of the query; raises `UserError` where there is none of that name, where a pair is of no scale's
    cells, and where its recipes differ in more than the claim says.
    """
    if query["experiment"] not in EXPERIMENTS:
        raise UserError(f"claim {claim!r}: {unknown('experiment', query['experiment'], EXPERIMENTS)}")
    experiment, may = EXPERIMENTS[query["experiment"]], set(query["differ"])
    scales = [experiment.recipes(scale) for scale in SCALES]
    for treated, control in query["compare"]:
        known = [recipes for recipes in scales if {treated, control} <= recipes.keys()]
        if not known:
            missing = treated if any(control in recipes for recipes in scales) else control
            raise UserError(f"claim {claim!r}: {unknown('cell', missing, set().union(*scales))}")
        for recipes in known:
            if more := _differences(recipes[treated], recipes[control]) - may:
                told = f"{treated!r} and {control!r} differ in {', '.join(sorted(more))}"
                raise UserError(f"claim {claim!r}: {told} too; it allows for {', '.join(sorted(may))}")
    return experiment


def _differences(one: Recipe, other: Recipe) -> set[str]:
    return {each.name for each in fields(Recipe) if getattr(one, each.name) != getattr(other, each.name)}


def _entry(unanswered: Entry, gains: list[pd.Series], scale: str, threshold: float) -> Entry:
    """The line that `gains` fill in: of several comparisons the lowest interval counts, and the fewest seeds."""
    low, measured, high = min(
        (low, measured, high) for gain in gains for measured, low, high in [interval(gain.to_numpy())]
    )
    seeds = min(map(len, gains))
    verdict = verdict_of(low, threshold, seeds)
    return replace(unanswered, measured=measured, low=low, high=high, seeds=seeds, scale=scale, verdict=verdict)


def _gains(rows: pd.DataFrame, query: dict, cells: Mapping[str, Cell]) -> list[pd.Series]:
    """For each comparison of the query the gain, treated minus control, paired by seed; empty if any has no rows.

    A lower loss is a gain; where the query asks what is `saved`, the share of the text is. A seed that diverged counts
    as the worst gain there is: left out, it would flatter.
    """
    rows = rows[~rows["seed"].isin(query.get("search_seeds", []))]
    last, sign = final(rows, query["metric"]), -1 if query["metric"] == "loss" else 1
    found = {cell: values.droplevel("cell") for cell, values in last.groupby("cell")}
    gains = []
    for treated, control in query["compare"]:
        if not {treated, control} <= set(found):
            return []
        if query.get("saved"):
            models = _family(treated, cells, found)
            gain = 1 - needed(models.assign(target=models["seed"].map(found[control])), "text")
        else:
            both = found[treated].index.intersection(found[control].index)
            gain = sign * (found[treated][both] - found[control][both])
        if gain.empty:
            return []
        gains.append(gain.fillna(-np.inf))
    return gains


def _family(cell: str, cells: Mapping[str, Cell], losses: Mapping[str, pd.Series]) -> pd.DataFrame:
    """The models of the cells that differ from this one in their share of the text alone: seed, text, loss."""
    own = cells[cell].factors
    alike = [name for name in losses if replace(cells[name].factors, text=own.text) == own]
    return pd.concat(losses[name].rename("loss").reset_index().assign(text=cells[name].factors.text) for name in alike)


def verdict_of(low: float, threshold: float, seeds: int) -> str:
    """Reproduced: the whole interval of enough seeds reaches `threshold`, half the paper's effect. Partly: it is
    above zero.
    """
    if low >= threshold and seeds >= ENOUGH_SEEDS:
        return "reproduced"
    return "partly" if low > 0 else "not reproduced"
