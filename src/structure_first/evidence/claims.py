"""The ledger: every claim of the paper beside what the stored rows say. A verdict is computed, never typed."""

from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from structure_first.errors import UserError
from structure_first.evidence.statistics import final, interval, saved
from structure_first.evidence.store import Store

SCALES = ("paper", "gpu", "laptop", "smoke")  # the largest that has the rows, and enough seeds, answers
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


def _answer(claim: dict, results: Path) -> Entry:
    unanswered = Entry(claim["id"], claim["statement"], claim["paper"])
    query = claim.get("query")
    if not query:
        return unanswered
    if not query["compare"]:
        raise ValueError(f"{claim['id']} compares nothing; name pairs of cells under compare")
    rows = Store(results / query["experiment"]).rows()
    answers = [
        _entry(unanswered, gains, scale, query["reproduced_from"])
        for scale in SCALES
        if (gains := _gains(rows[rows["scale"] == scale], query))
    ]
    enough = [entry for entry in answers if entry.seeds >= ENOUGH_SEEDS]
    return next(iter(enough + answers), unanswered)


def _entry(unanswered: Entry, gains: list[pd.Series], scale: str, threshold: float) -> Entry:
    """The line that `gains` fill in: several comparisons are as good as the one with the lowest interval."""
    low, measured, high, seeds = min(
        (low, measured, high, len(gain)) for gain in gains for measured, low, high in [interval(gain.to_numpy())]
    )
    verdict = verdict_of(low, threshold, seeds)
    return replace(unanswered, measured=measured, low=low, high=high, seeds=seeds, scale=scale, verdict=verdict)


def _gains(rows: pd.DataFrame, query: dict) -> list[pd.Series]:
    """For each comparison of the query the gain, treated minus control, paired by seed; empty if any has no rows.

    A lower loss is a gain; where the query asks what is `saved`, the share of the text is. A seed that diverged counts
    as the worst gain there is: left out, it would flatter.
    """
    rows = rows[~rows["seed"].isin(query.get("search_seeds", []))]
    last, sign = final(rows, query["metric"]), -1 if query["metric"] == "loss" else 1
    cells = {cell: values.droplevel("cell") for cell, values in last.groupby("cell")}
    gains = []
    for treated, control in query["compare"]:
        if query.get("saved"):
            gain = saved(last, treated, control)
        elif {treated, control} <= set(cells):
            both = cells[treated].index.intersection(cells[control].index)
            gain = sign * (cells[treated][both] - cells[control][both])
        else:
            return []
        if gain.empty:
            return []
        gains.append(gain.fillna(-np.inf))
    return gains


def verdict_of(low: float, threshold: float, seeds: int) -> str:
    """Reproduced: the whole interval of enough seeds reaches `threshold`, half the paper's effect. Partly: it is
    above zero.
    """
    if low >= threshold and seeds >= ENOUGH_SEEDS:
        return "reproduced"
    return "partly" if low > 0 else "not reproduced"
