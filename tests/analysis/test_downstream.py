"""What is left of a gain when the model was trained on: before and after, seed by seed."""

import pandas as pd
import pytest

from structure_first.analysis import downstream as analysis
from structure_first.analysis.stored import with_factors
from structure_first.book.figures import text as draw
from structure_first.experiments.downstream import EXPERIMENT
from structure_first.runs.jobs import Replica

BEFORE = {"random init": (2.0, 2.2, 2.1), "set": (1.8, 1.9, 2.1), "set / permuted": (1.9, 2.2, 2.0)}
AFTER = {
    "random init": (1.0, 1.2, 1.1),
    "set": (0.95, 1.25, 1.1),
    "set / permuted": (1.1, 1.3, 1.2),
}
TASK = "code, then language"


@pytest.fixture
def found(rows_of):
    recipes = EXPERIMENT.recipes("laptop")

    def rows(losses, named, stage):
        values = {(named(front), seed): value for front, seeds in losses.items() for seed, value in enumerate(seeds)}
        return rows_of(values, "loss", stage=stage).assign(scale="laptop")

    before = rows(BEFORE, lambda front: Replica("", recipes[f"{TASK} / {front}"], 0).before.cell, 1)
    after = rows(AFTER | {"no text": (3, 3, 3)}, lambda front: f"{TASK} / {front}", 2)
    return analysis.lasting(with_factors(pd.concat([before, after], ignore_index=True), EXPERIMENT), EXPERIMENT)


def test_a_gain_is_told_before_and_after_against_random_init_of_the_same_seed(found):
    gains = found.set_index(["label", "when", "seed"])["gain"].round(6).sort_index()
    assert gains["set", analysis.WHEN[0]].to_list() == [0.2, 0.3, 0.0]
    assert gains["set", analysis.WHEN[1]].to_list() == [0.05, -0.05, 0.0]
    assert gains["no text"].index.unique("when").to_list() == [analysis.WHEN[1]], "it had no text before"
    table = analysis.worth(found)
    assert table.loc[(TASK, "set")].to_list() == ["+0.200 (+0.000 to +0.300)", "+0.000 (-0.050 to +0.050)", 3]
    assert table.loc[(TASK, "no text"), analysis.WHEN[0]] == "" and "random init" not in table.index.unique("in front")


def test_each_front_is_drawn_from_before_to_after(found):
    fig = draw.lasting(found)
    medians = [trace for trace in fig.data if "lines" in trace.mode]
    before, after = analysis.WHEN
    assert {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in medians} == {
        "set": {before: 0.2, after: 0.0},
        "set, permuted": {before: 0.1, after: -0.1},
    }
