"""The pages that are computed: the ledger of claims as it stands in the stored rows."""

from html import escape
from pathlib import Path

from structure_first.analysis.claims import BESIDE, COLUMNS, Answer, Comparison, ledger, told

SIGNS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘"}
FIRST = ("haystack", "additive", "substitutive", "where", "mixing")  # what a newspaper would ask
HEADER = ("claim", *BESIDE.values())


def fragments(results: Path) -> dict[str, str]:
    """Each generated page by its name, computed from the folder of results; `claims.yml` lies beside that."""
    entries = ledger(Path(results).parent / "claims.yml", results)
    lines = [HEADER, ("---",) * len(HEADER)]
    for entry in entries:
        answers = [answered(getattr(entry, column)) for column in COLUMNS]
        lines.append((f"{text(entry.statement)}.<br>*Paper: {text(entry.paper)}.*", *answers))
    table = "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)
    return {"claims": table, "answers": "".join(f"- {text(told(entry))}\n" for entry in entries if entry.id in FIRST)}


def answered(answer: Answer | None) -> str:
    """The verdict and the gain that decides it, and behind a click every comparison."""
    if answer is None:
        return "not&nbsp;yet&nbsp;run"
    sign, words = SIGNS.get(answer.verdict, ""), answer.verdict.replace(" ", "&nbsp;")
    gain = f"{answer.decides.unit} {answer.decides.gain(2)}; {answer.counted}; scale {answer.scale}"
    each = "<br>".join(map(compared, answer.comparisons))
    return f"**{sign}&nbsp;{words}**<br>{text(gain)}<details><summary>compared</summary>{each}</details>"


def compared(each: Comparison) -> str:
    gain = f"{each.treated} over {each.control}: {each.gain(2)}, {each.seeds} seeds, {each.scale}"
    return text(f"{gain}; reproduced from {each.threshold:+g}")


def text(words: object) -> str:
    """Words of the ledger's as a page shows them, whatever is in them."""
    return escape(" ".join(str(words).split()), quote=False)


def cell(content: str) -> str:
    return content.replace("|", "\\|")
