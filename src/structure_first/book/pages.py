"""The pages that are computed: the ledger of claims as stored rows answer it, every experiment's settings, the tables
of the reference.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from math import isfinite
from pathlib import Path

import pandas as pd

from structure_first.analysis.answers import BESIDE
from structure_first.analysis.claims import ledger
from structure_first.analysis.comparison import ENOUGH_SEEDS, SIZES, Answer, Comparison, Entry
from structure_first.analysis.haystack import jumped_said
from structure_first.analysis.methods import methods
from structure_first.analysis.stored import of_today
from structure_first.book import reference, repository
from structure_first.book.figures.haystack import curves
from structure_first.book.figures.style import html
from structure_first.evidence.statistics import LEARNT
from structure_first.experiments import haystack
from structure_first.experiments.registry import EXPERIMENTS

SIGNS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘"}
WIDE, HIGH = 240, 26  # of the drawing of an interval
LEDGER = "believe.html"  # the page beside the first one that has all of the ledger
ROWS = "results"  # a folder beside the first page, into which the build puts the stored rows and their manifests


def fragments(results: Path) -> dict[str, str]:
    """Each generated page by its name, computed from the folder of results; `claims.yml` lies beside that."""
    book = Path(results).parent
    entries, config = ledger(book / "claims.yml", results), repository.read(book.parent)
    return {
        "claims": f'<div class="sf-ledger">\n{"".join(map(line, entries))}</div>\n',
        "answers": first(entries),
        "picture": picture(results),
        "methods": "\n".join(settings(name) for name in EXPERIMENTS),
        "sources": reference.sources(),
        "rules": reference.rules(),
        "verbs": reference.verbs(),
        "launch": repository.launch(config),
        "citation": repository.citation(book.parent, config),
    }


def picture(results: Path) -> str:
    """The first page's figure, of the rows that its first answer is of: which models come to recall, and when."""
    by_scale = of_today(haystack.EXPERIMENT, results)
    if not by_scale:
        return ""
    (scale, rows), tuned = next(iter(by_scale.items())), f"tuned init{haystack.FASTER}"  # the largest
    said = {"random init": "random init", tuned: "tuned init", "dyck mean": "after Dyck brackets"}
    rows, cells = rows[rows["cell"].isin(said)].replace({"cell": said}), tuple(said.values())
    jumped = jumped_said(rows)
    return html(
        curves(rows, cells, haystack.stage_two(scale).make()).update_layout(height=280),
        alt=f"Accuracy of recall against the update, a line a seed. {jumped}",
        caption=f"Recall from context as published, at {SIZES[scale]}: a line a seed, blue after brackets, the others "
        f"with nothing in front; tuned init begins as suits smaller models best. {jumped} In smaller models, where the "
        "controls have run, new embedding rows drawn like the learnt ones bring the jump with nothing else carried "
        "over, and so does that start: chapter 3.",
    )


def first(entries: list[Entry]) -> str:
    """The answers that fit a first screen: each claim that is `asked`, by which the ledger is reached, and its two
    verdicts, on each task where these differ; and how those of the others come out.
    """
    asked = [entry for entry in entries if entry.asked]
    if not asked:
        return ""

    def told(answer: Answer) -> str:
        by_verdict = answer.by_verdict
        each = [
            f"{signed(name, name.removesuffix(' reproduced'))} on {text(' and '.join(tasks))}"
            for name, tasks in by_verdict.items()
        ]
        lines = "<br>".join(each if len(by_verdict) > 1 else [signed(answer.verdict)])
        return f"<p>{lines}</p>\n<p><small>{text(answer.sizes)}</small></p>"

    columns = ("what made the news", *BESIDE.values())
    heads = "".join(f'<p class="sf-asked">{column.capitalize()}</p>\n' for column in columns)
    lines = [
        f'<div class="sf-claim">\n<div><p><a href="{LEDGER}#claim-{text(entry.id)}">{text(entry.asked)}</a></p></div>\n'
        f"{both(entry, told)}</div>\n"
        for entry in asked
    ]
    others = [entry.published.verdict for entry in entries if entry not in asked and entry.published]
    rest = "; ".join(f"{count} {name}" for name, count in Counter(others).most_common())
    ledger = f' Of the <a href="{LEDGER}">ledger</a>\'s other claims, as published: {rest}.' if rest else ""
    above = f'<div class="sf-claim sf-heads" aria-hidden="true">{heads}</div>'
    below = f"<p>A front is told in per cent of the text's tokens.{ledger}</p>\n"
    return f'<div class="sf-first">\n{above}\n{"".join(lines)}</div>\n{below}'


def both(entry: Entry, told: Callable[[Answer], str]) -> str:
    """The two answers to a claim, each below what it is to."""
    answers = {where: getattr(entry, column) for column, where in BESIDE.items()}
    return "".join(
        f'<div><p class="sf-asked">{where.capitalize()}</p>{told(answer) if answer else "<p>not yet run</p>"}</div>\n'
        for where, answer in answers.items()
    )


def signed(verdict: str, told: str = "") -> str:
    """A verdict with its sign, in words that may say more."""
    return f"<strong>{SIGNS.get(verdict, '')} {text(told or verdict)}</strong>"


def line(entry: Entry) -> str:
    """A claim and its two answers, side by side or, on a phone, one below the other."""
    answers = both(entry, answered)
    claim = f"<div><strong>{text(entry.statement)}.</strong><br>The paper: {text(entry.paper)}.</div>"
    return f'<section class="sf-claim" id="claim-{text(entry.id)}">\n{claim}\n{answers}</section>\n'


def answered(answer: Answer) -> str:
    """The verdict, the gain that decides it, drawn and in words, and behind a click every comparison."""
    each = answer.decides
    gain = f"{each.said}: {each.told}; {each.counted}"
    rest = "".join(map(compared, answer.comparisons))
    many = answer.others or "what was compared"
    return (
        f"<p>{signed(answer.verdict, answer.told)}</p>\n{drawn(each)}\n"
        f"<p>{text(gain)}</p>\n<details><summary>{many}</summary><ul>{rest}</ul></details>"
    )


def compared(each: Comparison) -> str:
    """A comparison in words, seed by seed; where its rows lie beside the page, and the command that remakes them."""
    at = f"{ROWS}/{each.experiment}"
    files = f'<a href="{at}/rows.parquet">rows</a>, <a href="{at}/manifest.json">manifest</a>'
    run, cells = f"structure-first run {each.experiment} --scale {each.scale}", text(",".join(each.cells))
    again = " and ".join(
        f"<code>{run} --first-seed {first} --seeds {many} --cells &quot;{cells}&quot; --out again</code>"
        for first, many in stretches(seed for seed, _ in each.by_seed)
    )
    made = f"made again by {again}" if each.cells else "of corpora that cannot be made again"
    gain = f"{each.said}: {each.told}, {each.counted}; "
    gain += f"reproduced if the interval of {ENOUGH_SEEDS} seeds or more reaches {each.threshold:+g} with all of it"
    gain += f"; stage one was learnt to {each.learnt:.0%}" * (each.learnt >= LEARNT)
    gain += "".join(f"; {one.told}, {one.counted}" for one in each.elsewhere)
    return f"<li>{text(gain)}. <small>Seed by seed: {each.seeds_told}; {files}, {made}</small></li>"


def stretches(seeds: Iterable[int]) -> list[tuple[int, int]]:
    """The first of the seeds that follow one another, and how many these are, for each stretch of them."""
    ascending = pd.Series(sorted(seeds))
    stretch = ascending.groupby(ascending - ascending.index)
    return list(zip(stretch.min(), stretch.size(), strict=True))


def drawn(each: Comparison) -> str:
    """The median as a dot with its interval as a bar, zero as a line, and a mark from where it counts as reproduced."""
    seen = [value for value in (each.low, each.measured, each.high, each.threshold, 0.0) if isfinite(value)]
    first, span = min(seen), (max(seen) - min(seen)) or 1.0

    def at(value: float) -> float:
        share = (value - first) / span if isfinite(value) else 0.0  # what has no end begins at the edge
        return round(8 + (WIDE - 16) * share, 1)

    middle = HIGH / 2
    low, dot, high, zero, enough = map(at, (each.low, each.measured, each.high, 0.0, each.threshold))
    label = f"{each.told}; zero and the mark at {each.threshold:+g} are lines"
    return (
        f'<svg class="sf-interval" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f'<line class="zero" x1="{zero}" x2="{zero}" y1="1" y2="{HIGH - 1}"/>'
        f'<line class="enough" x1="{enough}" x2="{enough}" y1="1" y2="{HIGH - 1}"/>'
        f'<line class="bar" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{dot}" cy="{middle}" r="5"/></svg>'
    )


def settings(name: str) -> str:
    """What an experiment asks and a table of its settings, behind a click."""
    experiment = EXPERIMENTS[name]
    table = methods(experiment).to_html(border=0, justify="left")
    scrolled = f'<div class="pst-scrollable-table-container">\n{table}\n</div>'
    return f"## {name}\n\n{experiment.asks}\n\n:::{{dropdown}} Every setting\n{scrolled}\n:::\n"


def text(words: object) -> str:
    """Words of the ledger's as a page shows them, whatever is in them."""
    return escape(" ".join(str(words).split()), quote=False)
