"""The ledger: every claim of the paper beside what the stored rows say. A verdict is computed, never typed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from structure_first.errors import UserError
from structure_first.evidence.statistics import final, interval
from structure_first.evidence.store import Store

SCALES = ("paper", "gpu", "laptop", "smoke")  # the largest that has the rows answers


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


def ledger(claims: Path, results: Path) -> list[Entry]:
    """Every claim of the file `claims`, answered from the stores under `results`; raises `UserError` if broken."""
    try:
        listed = yaml.safe_load(Path(claims).read_text())
        return [_answer(claim, Path(results)) for claim in listed]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the claims in {claims}: {' '.join(str(error).split())}") from None


def as_json(entries: list[Entry]) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in entries]


def _answer(claim: dict, results: Path) -> Entry:
    entry = dict(id=claim["id"], statement=claim["statement"], paper=claim["paper"])
    query = claim.get("query")
    if not query:
        return Entry(**entry)
    rows = Store(results / query["experiment"]).rows()
    for scale in SCALES:
        gains = _gains(rows[rows["scale"] == scale], query)
        if gains is None:
            continue
        columns = list(gains.values())
        medians = [interval(column.to_numpy()) for column in columns]
        weakest = min(
            range(len(columns)), key=lambda i: medians[i][0]
        )  # a claim about several cells is as good as its worst
        measured, low, high = medians[weakest]
        verdict = verdict_of(low, high, measured, query["reproduced_from"])
        return Entry(
            **entry, measured=measured, low=low, high=high, seeds=len(columns[0]), scale=scale, verdict=verdict
        )
    return Entry(**entry)


def _gains(rows: pd.DataFrame, query: dict) -> dict[str, pd.Series] | None:
    """For each comparison of the query the gain, treated minus control, paired by seed; None where any has no rows."""
    rows = rows[~rows["seed"].isin(query.get("search_seeds", []))]
    values, gains = final(rows, query["metric"]), {}
    for treated, control in query["compare"].items():
        if not {treated, control} <= set(values.index.get_level_values("cell")):
            return None
        gain = (values[treated] - values[control]).dropna()
        if gain.empty:
            return None
        gains[treated] = gain
    return gains


def verdict_of(low: float, high: float, measured: float, threshold: float) -> str:
    """Reproduced: the whole interval reaches `threshold`, half the paper's effect. Partly: it is above zero."""
    if not np.isfinite(measured):
        return "not reproduced"
    if low >= threshold:
        return "reproduced"
    return "partly" if low > 0 else "not reproduced"
