"""Makes stored rows again, and says which differ and by how much: a stored row is what today's code makes."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from structure_first.errors import UserError
from structure_first.evidence.statistics import final
from structure_first.evidence.store import KEY, Store, environment
from structure_first.runs.planning import chosen, current
from structure_first.runs.recipe import Experiment
from structure_first.runs.runner import run

CLOSE = 0.01  # how far apart, of its own size, the first measurement after training began may be
SAME = ("processor", "device", "packages", "python")  # of two manifests, where the same bits are to be expected


def verify(
    experiment: Experiment,
    scale: str,
    results: Path,
    cells: Sequence[str] | None = None,
    sample: int | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> pd.DataFrame:
    """A line for each stored model of stage two that was made again: how far its first and its last measurements are
    from the stored ones, how far the stored seeds are from one another, and whether it holds.

    All of the named cells, or a `sample` of so many models. A model holds bit for bit; or closely at first and, since
    rounding grows as training goes on, in the end within the spread over seeds. Raises `UserError` if none is stored,
    or of a corpus that is another one here.
    """
    experiment, store = chosen(experiment, scale, cells), Store(results / experiment.name)
    rows = measured(current(experiment, scale, store.rows()))
    models = list(rows[["cell", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    if not models:
        raise UserError(f"no rows of {experiment.name} at scale {scale} are stored in {store.folder}; run it first")
    if sample is not None:
        models = sorted(Random(0).sample(models, min(sample, len(models))))
    runs, here, lines = store.manifest()["runs"], environment(), []
    of_model = rows.groupby(["cell", "seed"])["run"].first()
    for cell in dict.fromkeys(cell for cell, _ in models):
        packed = experiment.recipes(scale)[cell].last.make().settings.get("digest")
        if any(runs[run].get("source", {}).get("digest", packed) != packed for run in of_model[cell]):
            raise UserError(f"{cell} was trained on another corpus than the one that is packed here under its name")
    with TemporaryDirectory(prefix="verify-") as folder:
        for cell, seed in models:
            again = run(experiment, scale, [seed], Path(folder), device, workers, [cell])
            stored = rows[(rows["cell"] == cell) & (rows["seed"] == seed)]
            stops = experiment.recipes(scale)[cell].last.stage.mastery is not None
            line = {"cell": cell, "seed": seed} | compared(stored, measured(again), rows[rows["cell"] == cell], stops)
            manifest = runs[of_model[cell, seed]]
            lines.append(line | {"same machine": all(manifest.get(name) == here[name] for name in SAME)})
    return pd.DataFrame(lines)


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """What stage two measured; what stage one left to it is the stage one's."""
    return rows[(rows["stage"] == 2) & rows["metric"].isin(["loss", "accuracy"])]


def compared(stored: pd.DataFrame, again: pd.DataFrame, others: pd.DataFrame, stops: bool = False) -> dict:
    """How two makings of one model differ, beside how the `others`, of all seeds, differ from one another; one that
    `stops` when it has mastered its task may do so at another step.
    """
    both = stored.merge(again, on=[*KEY, "step", "metric"], how="outer", suffixes=("", " again"))
    same = (both["value"] == both["value again"]) | both[["value", "value again"]].isna().all(axis=1)  # diverged alike
    apart = (both["value"] - both["value again"]).abs() / both["value"].abs().clip(lower=1e-9)
    at_first = both["step"] == both.loc[both["step"] > 0, "step"].min()
    ends = [final(each, "loss").iloc[0] for each in (stored, again)]
    comparable = stops or stored["step"].max() == again["step"].max()
    differences = {
        "first": apart[at_first & (both["metric"] == "loss")].max(),
        "last": abs(ends[0] - ends[1]) if comparable else np.nan,
        "spread": np.ptp(final(others, "loss").dropna()),
        "bits": bool(len(stored) == len(again) == len(both) and same.all()),
    }
    close = differences["first"] <= CLOSE and differences["last"] <= differences["spread"]
    return differences | {"holds": bool(differences["bits"] or close)}
