"""The ledger told: in words, and as JSON for a program."""

from math import isfinite
from pathlib import Path
from typing import Any

from structure_first.analysis.claims import ledger
from structure_first.analysis.comparison import COLUMNS, Answer, Entry
from structure_first.analysis.stored import RESULTS

BESIDE = {"published": "as published", "tuned": "beside a tuned baseline"}
GAIN = ("measured", "low", "high")
COMPARED = ("treated", "control", *GAIN, "seeds", "scale")
LEDGER = Path("../claims.yml")  # as a chapter sees it


def verdicts(*ids: str, claims: Path = LEDGER, results: Path = RESULTS) -> str:
    """What the ledger says to these claims, in words: a line each."""
    by_id = {entry.id: entry for entry in ledger(claims, results)}
    return "\n".join(f"- {told(by_id[each])}" for each in ids)


def told(entry: Entry) -> str:
    """What the rows say to a claim, in words."""
    answers = [f"{where} {_worded(getattr(entry, column))}" for column, where in BESIDE.items()]
    return f"*{entry.statement}*: {'; '.join(answers)}."


def _worded(answer: Answer | None) -> str:
    if answer is None:
        return "not yet run"
    return f"**{answer.told}** ({'; '.join(filter(None, (answer.decides.in_words, answer.others)))})"


def as_json(entries: list[Entry]) -> list[dict[str, Any]]:
    """The entries as plain objects, an answer with the gain that decides it; what is not finite is null in JSON."""

    def plain(answer: Answer | None) -> dict[str, Any] | None:
        if answer is None:
            return None
        own = _told(answer.decides, GAIN) | _told(answer, ("seeds", "scale", "verdict"))
        return own | {"comparisons": [_told(each, COMPARED) for each in answer.comparisons]}

    told = ("id", "statement", "paper")
    return [_told(entry, told) | {name: plain(getattr(entry, name)) for name in COLUMNS} for entry in entries]


def _told(kept: Any, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(kept, name) for name in names}
    return {name: None if isinstance(each, float) and not isfinite(each) else each for name, each in values.items()}
