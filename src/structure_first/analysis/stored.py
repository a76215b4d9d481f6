"""The stored rows of an experiment, each beside what its cell is to the experiment."""

from pathlib import Path

import pandas as pd

from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.runs.planning import current
from structure_first.runs.recipe import Experiment
from structure_first.scales import SCALES

RESULTS = Path("../results")  # as a chapter sees them


def of_today(experiment: Experiment, results: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """The rows that today's cells make, by scale from the largest, of each that has some."""
    rows = Store(Path(results) / experiment.name).rows()
    ran = [scale for scale in reversed(SCALES) if (rows["scale"] == scale).any() and experiment.cells(scale)]
    found = {scale: current(experiment, scale, rows) for scale in ran}
    return {scale: mine for scale, mine in found.items() if not mine.empty}


def stored(experiment: Experiment, results: Path = RESULTS) -> pd.DataFrame:
    """The rows of the largest scale that has some, with the factors of their cells."""
    for rows in of_today(experiment, results).values():
        return with_factors(rows, experiment)
    remedy = f"restore book/results or make them: structure-first run {experiment.name}"
    raise UserError(f"there are no stored results of {experiment.name} that today's cells make; {remedy}")


def with_factors(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Rows of one scale with a column for each factor of their cells; a stage one alone has none."""
    return rows.join(experiment.factors(rows["scale"].iloc[0]), on="cell")
