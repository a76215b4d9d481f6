"""The stored rows of an experiment, each beside what its cell is to the experiment."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pandas as pd

from structure_first.errors import UserError
from structure_first.evidence.statistics import final, told
from structure_first.evidence.store import Store
from structure_first.runs.planning import current, first_part
from structure_first.runs.recipe import Experiment, Factors
from structure_first.scales import SCALES

RESULTS = Path("../results")  # as a chapter sees them


def of_today(experiment: Experiment, results: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """The rows that today's cells make, by scale from the largest, of each that has some."""
    rows = Store(Path(results) / experiment.name).rows()
    ran = [scale for scale in reversed(SCALES) if (rows["scale"] == scale).any() and experiment.cells(scale)]
    by_scale = {scale: current(experiment, scale, rows) for scale in ran}
    return {scale: mine for scale, mine in by_scale.items() if not mine.empty}


def stored(experiment: Experiment, results: Path = RESULTS) -> pd.DataFrame:
    """Of `sizes` the largest that has most of the cells: a few cells of a larger one, run first, do not take the place
    of all the others.
    """
    every = sizes(experiment, results)
    cells = [rows.loc[rows["stage"] == 2, "cell"].nunique() for rows in every]
    return [rows for rows, own in zip(every, cells, strict=True) if 2 * own >= max(cells)][-1]


def sizes(experiment: Experiment, results: Path = RESULTS) -> list[pd.DataFrame]:
    """The rows of every scale that has some, from the smallest, with the factors of their cells; raises `UserError`
    where there are none.
    """
    if by_scale := of_today(experiment, results):
        return [with_factors(rows, experiment) for rows in reversed(by_scale.values())]
    remedy = f"restore book/results or make them: structure-first run {experiment.name}"
    raise UserError(f"there are no stored results of {experiment.name} that today's cells make; {remedy}")


def untreated(table: pd.DataFrame, alike: list[str]) -> pd.DataFrame:
    """What random init has where these columns are alike, a line for each line of `table`; NaN where there is none."""
    base = table[table["front"] == "random init"].set_index(alike)
    return base.reindex(pd.MultiIndex.from_frame(table[alike])).set_axis(table.index)


def live_folder(out: str | Path) -> Path:
    """The folder `out` for a reader's own rows; raises `UserError` for a file, and within the stored results."""
    folder = Path(out)
    if folder.resolve().is_relative_to(RESULTS.resolve()) or (folder.exists() and not folder.is_dir()):
        raise UserError(f"out must be a folder outside of {RESULTS}, as ../_build/live/mine, not {out}")
    return folder


def ended(rows: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """The last value of a metric, a line a model, with its cell's factors."""
    factors = rows.drop_duplicates("cell").set_index("cell")[[each.name for each in fields(Factors)]]
    return final(rows, metric).rename(metric).reset_index().join(factors, on="cell")


def over_seeds(models: pd.DataFrame, value: str, down: list[str], across: str, form: str = "{:+z.3f}") -> pd.DataFrame:
    """A value's median and interval over seeds: a line for what stands in the columns `down`, a column for each value
    of `across`, and how many seeds there are.
    """
    models = models.dropna(subset=value)
    cells = models.groupby([*down, across], sort=False)[value].apply(lambda seeds: told(form, seeds))
    table = cells.unstack(across, sort=False).fillna("")
    return table.assign(seeds=models.groupby(down)["seed"].nunique())


def ordered(models: pd.DataFrame, by: str | list[str], order: Iterable) -> pd.DataFrame:
    """The models sorted by columns whose values come in a given order."""
    places = list(order)
    return models.sort_values(by, key=lambda column: column.map(places.index), kind="stable")


def with_factors(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Rows of one scale with a column for each factor of their cells; a stage one alone has none."""
    return rows.join(experiment.factors(rows["scale"].iloc[0]), on="cell")


def beside(
    rows: pd.DataFrame, experiment: Experiment, metric: str = "accuracy", results: Path = RESULTS, part: float = 1.0
) -> str:
    """A reader's own rows beside the stored ones of the same cells and scale, as a sentence and a table in Markdown;
    both of the first `part` of stage two.

    The stored seeds are others, so a run is inside the reference where its median lies between the lowest and highest.
    """
    scale = rows["scale"].iloc[0]
    reference = of_today(experiment, results).get(scale)
    stored_rows = rows.iloc[:0] if reference is None else first_part(experiment, scale, reference, part)
    mine = final(rows, metric).groupby("cell").agg(["size", "median"])
    theirs = final(stored_rows, metric).groupby("cell").agg(["size", "min", "max"])
    both = pd.concat([mine, theirs], axis=1, join="inner")
    both.columns = ["your seeds", "your median", "reference seeds", "lowest", "highest"]
    heading = "*Your run beside the reference*"
    if both.empty:
        return f"{heading}: at scale `{scale}` no rows of these cells are stored to compare it with."
    inside, stored_seeds = both["your median"].between(both["lowest"], both["highest"]), both["reference seeds"]
    cases = " and ".join(f"of {seeds} in {2 / (seeds + 1):.0%}" for seeds in sorted(stored_seeds.unique()))
    told = (
        f"{heading}: {inside.sum()} of {len(both)} cells end inside the reference's range. "
        f"One more seed of the same kind lies outside the range {cases} of cases; "
        "runs of one seed move together."
    )
    table = both.assign(inside=inside.map({True: "yes", False: "no"})).to_markdown(floatfmt=".3f")
    return f"{told}\n\n{table}"
