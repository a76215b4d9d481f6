"""The ledger: every claim of the paper beside what the stored rows say, twice. A verdict is computed, never typed.

*Published* is the paper's comparison with the paper's recipe; *tuned* is what is left beside a baseline whose settings
were sought first, blind to what is compared with it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from structure_first.analysis.comparison import COLUMNS, FEWEST_SEEDS, UNITS, VERDICTS, Answer, Comparison, Entry
from structure_first.analysis.stored import of_today
from structure_first.data.corpora.documents import GONE
from structure_first.data.registry import PROCEDURAL
from structure_first.errors import UserError, unknown
from structure_first.evidence.statistics import final, interval, needed, share_read
from structure_first.experiments.additive import spent
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.experiments.text import tokens
from structure_first.pretraining.reading import read_yaml
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.scales import SCALES
from structure_first.schema import COUNT, validated

CASES = ("all", "any")  # how many of a claim's comparisons must hold; any: it says that there is a case
SETTINGS = tuple(each.name for each in fields(Recipe))  # in which two recipes may differ
QUERY = {
    "experiment": str,
    "metric": ("accuracy", "loss"),
    "compare": [[str, str]],
    "differ": [SETTINGS],
    "reproduced_from": float,
    "saved?": ("runs", "curve"),
    "search_seeds?": [COUNT],
    "lacking?": str,
}
ASKED = {"cases?": CASES, "queries": [QUERY]}
CLAIM = {
    "id": str,
    "statement": str,
    "paper": str,
    "asked?": str,
    **{f"{column}?": (None, ASKED) for column in COLUMNS},
}
FRONTS = {"random init": "nothing in front"}
CARRIED = {  # in words; of what is not named here, the experiment's own
    "full": "all carried over",
    "mean rows": "all carried over with mean rows",
    "same start": "all carried over from the same start",
    "attention": "only attention carried over",
    "mlp": "only MLPs carried over",
    "permuted": "its numbers in random order",
    "rescaled": "what it learnt at the size of fresh weights",
    "composed": "the attention of the first with the MLPs of the second",
}
Stored = Callable[[str], dict[str, pd.DataFrame]]  # the rows of an experiment by its name, by scale


def ledger(claims: Path, results: Path) -> list[Entry]:
    """Every claim of the file `claims`, answered from the stores under `results`; raises `UserError` if broken."""
    listed = read_yaml(claims, "go to the folder of the book, or name a list like its claims.yml with --ledger")
    try:
        counts = Counter(claim["id"] for claim in validated(listed, [CLAIM]))
        if twice := [each for each, count in counts.items() if count > 1]:
            raise ValueError(f"the id {twice[0]!r} stands twice")
    except ValueError as error:
        advice = "write them as the book's claims.yml does"
        raise UserError(f"cannot read the claims in {claims}: {error}; {advice}") from None
    stored: Stored = cache(lambda name: of_today(EXPERIMENTS[name], Path(results)))  # several queries ask one
    return [Entry(**claim | {column: _answer(claim, column, stored) for column in COLUMNS}) for claim in listed]


def _answer(claim: dict, column: str, stored: Stored) -> Answer | None:
    """What the rows say; None where there is no query, where none of its comparisons has rows or, unless a case is
    enough, where one has none.
    """
    asked = claim.get(column)
    if not asked:
        return None
    cases = asked.get("cases", "all")
    comparisons = [each for query in asked["queries"] for each in _compared(claim["id"], query, stored)]
    ran = [each for each in comparisons if each]
    if not ran or (cases == "all" and len(ran) < len(comparisons)):
        return None
    decides = (min if cases == "all" else max)(ran, key=lambda each: (VERDICTS.index(each.verdict), each.low))
    seeds, scale = min(each.seeds for each in ran), min((each.scale for each in ran), key=SCALES.index)
    return Answer(seeds, scale, tuple(ran), decides)


def _compared(claim: str, query: dict, stored: Stored) -> Iterator[Comparison | None]:
    """Each comparison of the query at the largest scale at which it has `FEWEST_SEEDS`, else at the largest with any;
    None where it has no rows.
    """
    experiment, threshold = _checked(claim, query), query["reproduced_from"]
    unit = "share of the text saved" if query.get("saved") else UNITS[query["metric"]]
    by_scale = stored(experiment.name)
    known = {
        scale: {name: each.factors for name, each in experiment.cells(scale).items() if isinstance(each, Cell)}
        for scale in by_scale
    }
    for treated, control in query["compare"]:
        comparisons = []
        for scale, rows in by_scale.items():
            gain = _gain(rows, query, known[scale], treated, control)
            if gain.empty:
                continue
            measured, low, high = interval(gain.to_numpy())
            recipes = {cell: experiment.recipes(scale)[cell] for cell in (treated, control)}
            pair = [_dosed(known[scale].get(cell, Factors(front=cell)), recipes[cell]) for cell in recipes]
            comparisons.append(
                Comparison(
                    *(treated, control, measured, low, high, len(gain), scale, unit, threshold, experiment.name),
                    said=_said(*pair),
                    learnt=_learnt(rows, recipes, gain.index),
                    task=(pair[0].task or "").replace("_", " "),
                    share=pair[0].share,
                    by_seed=tuple(gain.items()),
                    cells=_remade(recipes, query, known[scale]),
                    lacking=query.get("lacking", ""),
                )
            )
        comparisons.sort(key=lambda each: each.seeds < FEWEST_SEEDS)
        yield replace(comparisons[0], elsewhere=tuple(comparisons[1:])) if comparisons else None


def _dosed(cell: Factors, recipe: Recipe) -> Factors:
    """The same with the share that what is in front has of a text's tokens, where the recipe alone says it."""
    if cell.share is None and isinstance(recipe.stage_one, Phase) and "/" in recipe.last.source:
        return replace(cell, share=spent(recipe)[0] / tokens(recipe.last))
    return cell


def _said(treated: Factors, control: Factors) -> str:
    """What is compared, in words, what both have in common said once."""

    def told(cell: Factors) -> str:
        share = "" if cell.share is None else f", {100 * cell.share:.3g} % of the text"
        carried = "" if cell.carried is None else f", {CARRIED.get(cell.carried, cell.carried)}"
        return f"{FRONTS.get(cell.front, cell.front)}{share}{carried}"

    return f"{told(treated)}; beside {told(control)}"


def _checked(claim: str, query: dict) -> Experiment:
    """The experiment of the query; raises `UserError` where there is none of that name, where a pair is of no scale's
    cells, where its recipes differ in more than the claim says, and where nothing tells what is saved.
    """
    if not query["compare"]:
        raise UserError(f"claim {claim!r} compares nothing; name pairs of cells under compare")
    if "saved" in query and query["metric"] != "loss":
        raise UserError(f"claim {claim!r}: the loss tells what is saved; write metric: loss")
    if query["experiment"] not in EXPERIMENTS:
        raise UserError(f"claim {claim!r}: {unknown('experiment', query['experiment'], EXPERIMENTS)}")
    experiment, may = EXPERIMENTS[query["experiment"]], set(query["differ"])
    scales = [experiment.recipes(scale) for scale in SCALES]
    for treated, control in query["compare"]:
        if query.get("saved") == "runs" and any(isinstance(experiment.cells(s).get(treated), Recipe) for s in SCALES):
            raise UserError(f"claim {claim!r}: {treated!r} has no runs on shares of the text; write saved: curve")
        known = [recipes for recipes in scales if {treated, control} <= recipes.keys()]
        if not known:
            missing = treated if any(control in recipes for recipes in scales) else control
            raise UserError(f"claim {claim!r}: {unknown('cell', missing, set().union(*scales))}")
        for recipes in known:
            one, other = recipes[treated], recipes[control]
            if more := {name for name in SETTINGS if getattr(one, name) != getattr(other, name)} - may:
                told = f"{treated!r} and {control!r} differ in {', '.join(sorted(more))}"
                raise UserError(f"claim {claim!r}: {told} too; it allows for {', '.join(sorted(may))}")
    return experiment


def _gain(rows: pd.DataFrame, query: dict, factors: Mapping[str, Factors], treated: str, control: str) -> pd.Series:
    """The gain of each seed that has both, treated minus control.

    A lower loss is a gain; where the query asks what is `saved`, the share of the text is: of `runs` whose schedule
    ends there, or off the `curve` of one run. A seed that diverged counts as the worst gain there is: left out, it
    would flatter.
    """
    rows = rows[~rows["seed"].isin(query.get("search_seeds", []))]
    last = final(rows[rows["cell"].isin([treated, control])], query["metric"])
    sign = -1 if query["metric"] == "loss" else 1
    ends = {cell: values.droplevel("cell") for cell, values in last.groupby("cell")}
    if not {treated, control} <= set(ends):
        return pd.Series(dtype=float)
    if how := query.get("saved"):
        models = {"runs": _family, "curve": _curve}[how](treated, factors, rows)
        targets = models["seed"].map(ends[control].fillna(-np.inf))
        return 1 - needed(models.assign(target=targets), "text")
    both = ends[treated].index.intersection(ends[control].index)
    return (sign * (ends[treated][both] - ends[control][both])).fillna(-np.inf)


def _remade(recipes: Mapping[str, Recipe], query: dict, factors: Mapping[str, Factors]) -> tuple[str, ...]:
    """The cells that tell a gain, of a saving by runs those on shares of the text; none of a corpus that is no more."""
    if any(recipe.last.source.partition("/")[0] in GONE for recipe in recipes.values()):
        return ()
    treated, control = recipes
    shares = _shares(treated, factors) if query.get("saved") == "runs" else [treated]
    return (*shares, control)


def _learnt(rows: pd.DataFrame, recipes: Mapping[str, Recipe], seeds: pd.Index) -> float:
    """How well these seeds learnt the first stage one that has a rule to be learnt, their median; NaN for none."""
    for cell, recipe in recipes.items():
        if isinstance(recipe.stage_one, Phase) and recipe.stage_one.source in PROCEDURAL:
            return float(final(rows[rows["cell"].eq(cell) & rows["seed"].isin(seeds)], "mastery").median())
    return nan


def _shares(cell: str, factors: Mapping[str, Factors]) -> dict[str, float | None]:
    """The cells that differ from this one in their share of the text alone, and that share."""
    return {name: own.text for name, own in factors.items() if replace(own, text=factors[cell].text) == factors[cell]}


def _family(cell: str, factors: Mapping[str, Factors], rows: pd.DataFrame) -> pd.DataFrame:
    """The models of the cells that differ from this one in their share of the text alone: seed, text, loss."""
    shares = _shares(cell, factors)
    losses = final(rows[rows["cell"].isin(shares)], "loss").rename("loss").reset_index()
    return losses.assign(text=losses["cell"].map(shares))


def _curve(cell: str, factors: Mapping[str, Factors], rows: pd.DataFrame) -> pd.DataFrame:
    """The cell's models at each of their evaluations: seed, text, loss."""
    own = rows[(rows["cell"] == cell) & (rows["stage"] == 2) & (rows["metric"] == "loss") & (rows["step"] > 0)]
    return own[["seed"]].assign(text=share_read(own), loss=own["value"])
