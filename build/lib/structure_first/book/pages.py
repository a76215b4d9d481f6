"""The pages that are computed: the ledger of claims as it stands in the stored rows."""

from html import escape
from pathlib import Path

import yaml

from structure_first.analysis.claims import Entry, ledger

SIGNS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘"}
HEADER = ("claim", "measured here", "verdict")


def fragments(results: Path) -> dict[str, str]:
    """Each generated page by its name, computed from the folder of results; `claims.yml` lies beside that."""
    claims = Path(results).parent / "claims.yml"
    entries = ledger(claims, results)
    queries = [claim.get("query") for claim in yaml.safe_load(claims.read_text())]
    lines = [HEADER, ("---",) * len(HEADER)]
    lines += [
        (f"{text(it.statement)}.<br>*Paper: {text(it.paper)}.*", text(measured(it, query)), verdict(it))
        for it, query in zip(entries, queries, strict=True)
    ]
    return {"claims": "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)}


def measured(entry: Entry, query: dict | None) -> str:
    """The gain, its interval and what it was measured from; nothing where nothing has run."""
    if entry.measured is None or not query:
        return ""
    what = "share of the text saved" if query.get("saved") else query["metric"]
    compared = ", ".join(f"{treated} over {control}" for treated, control in query["compare"])
    weakest = {1: "", 2: "the weaker of "}.get(len(query["compare"]), "the weakest of ")
    return f"{what} {entry.gain(2)}: {weakest}{compared}; {entry.seeds} seeds, {entry.scale}"


def verdict(entry: Entry) -> str:
    sign, words = SIGNS.get(entry.verdict), entry.verdict.replace(" ", "&nbsp;")
    return f"**{sign}&nbsp;{words}**" if sign else words


def text(words: object) -> str:
    """Words of the ledger's as a page shows them, whatever is in them."""
    return escape(" ".join(str(words).split()), quote=False)


def cell(content: str) -> str:
    return content.replace("|", "\\|")
