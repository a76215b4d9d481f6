"""Along an axis: each point beside its own random init, what `published` has among them."""

from collections.abc import Callable

import pandas as pd
import pytest

from structure_first.analysis import axes as analysis
from structure_first.book.figures import published as draw
from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.experiments import axes, published
from structure_first.runs.recipe import Experiment

SEEDS = (700, 701, 702)


@pytest.fixture
def keep(tmp_path, rows_of) -> Callable[[Experiment, dict], None]:
    """Store rows as today's cells make them: by cell the last loss, or that of each seed."""

    def store(experiment: Experiment, ends: dict, scale: str = "laptop") -> None:
        spread = {cell: end if isinstance(end, dict) else dict.fromkeys(SEEDS, end) for cell, end in ends.items()}
        by_seed = {(cell, seed): loss for cell, losses in spread.items() for seed, loss in losses.items()}
        rows = rows_of(by_seed, metric="loss", scale=scale).assign(run=lambda rows: rows["cell"] + scale)
        learnt = rows[rows["cell"].str.startswith("code / set")].assign(metric="mastery", value=0.75)
        recipes = experiment.recipes(scale)
        runs = {cell + scale: {"configuration": recipes[cell].key} for cell in ends}
        Store(tmp_path / experiment.name).append(pd.concat([rows, learnt]), runs)

    return store


@pytest.fixture
def every(keep, tmp_path) -> pd.DataFrame:
    better = "wider start at 0.002"
    keep(
        published.EXPERIMENT,
        {
            "code / random init": 2.0,
            "code / set": {700: 1.9, 701: 1.8, 702: 1.7, 703: 0.1},
            "code / set / permuted": 2.25,
            "code / set / mlp": 0.1,
            "code / set / 100 updates": 0.1,
            "code / random init / 25 % of the text": 3.0,
            "code / set / 25 % of the text": 3.5,
            "code / set / permuted / 25 % of the text": 3.25,
            "code / set / 50 % of the text": 0.1,  # beside which nothing else has run
            "code / random init / warmed up at 0.002": 0.1,
            f"code / random init / {better}": 1.0,
            f"code / set / {better}": 1.25,
            f"code / set / permuted / {better}": 1.5,
            "code / random init / wider start at 0.001": 0.1,
            "math / random init": 0.1,
        },
    )
    larger = {f"code / {name}": 0.1 for name in ("random init", "set", "set / permuted")}
    keep(published.EXPERIMENT, larger, scale="gpu")
    keep(
        axes.EXPERIMENT,
        {
            "code / random init / width 64": 2.5,
            "code / set / width 64": 2.0,
            "code / set / permuted / width 64": 2.25,
            "code / random init / context 512": 1.5,  # of a point that has begun
        },
    )
    keep(
        axes.TUNED,
        {
            "code / random init / width 64": {700: 1.5, 701: 1.5},
            "code / set / width 64": {700: 1.25, 701: 1.5},
            "code / set / permuted / width 64": {700: 1.0, 701: 1.25},
        },
    )
    return analysis.along(tmp_path)


def test_each_point_is_told_beside_its_own_random_init(every):
    table = analysis.worth(every).reset_index(names=["start", "axis", "amount"])
    assert table.iloc[:, :7].to_numpy().tolist() == [
        ["as published", "width", 64, "2.500", "+0.500", "+0.250", "+0.250"],
        ["as published", "width", 128, "2.000", "+0.200 (+0.100 to +0.300)", "-0.250", "+0.450 (+0.350 to +0.550)"],
        ["as published", "updates", 375, "3.000", "-0.500", "-0.250", "-0.250"],
        ["as published", "updates", 1500, "2.000", "+0.200 (+0.100 to +0.300)", "-0.250", "+0.450 (+0.350 to +0.550)"],
        ["wider start", "width", 64, "1.500", "+0.125 (+0.000 to +0.250)", "+0.375 (+0.250 to +0.500)", "-0.250"],
        ["wider start", "width", 128, "1.000", "-0.250", "-0.500", "+0.250"],
    ]
    assert set(table["set learnt to"]) == {"75%"}
    assert table["seeds"].to_list() == [3, 3, 3, 3, 2, 2], "only those that ran at all points of an axis"


def test_a_panel_is_an_axis_from_a_start(every):
    fig = draw.along(every)
    assert [title.text for title in fig.layout.annotations] == [
        "as published,<br>width",
        "as published,<br>updates",
        "wider start,<br>width",
    ]
    medians = {
        (trace.name, trace.xaxis): dict(zip(trace.x, trace.y, strict=True))
        for trace in fig.data
        if trace.mode == "lines+markers"
    }
    assert medians["set", "x"] == pytest.approx({64: 0.5, 128: 0.2})
    assert medians["set, permuted", "x3"] == pytest.approx({64: 0.375, 128: -0.5})
    assert fig.layout.xaxis2.tickvals == (375, 1500)


def test_without_rows_of_its_own_there_is_nothing_to_tell(keep, tmp_path):
    keep(published.EXPERIMENT, {"code / random init": 2.0})
    with pytest.raises(UserError, match="structure-first run axes"):
        analysis.along(tmp_path)
