"""Chapter 04: what the figures of the grid tell, and its exercises' solutions run."""

from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structure_first.analysis import skills as analysis
from structure_first.book.figures import skills as draw
from structure_first.data import registry
from structure_first.experiments import skills

CHAPTER = Path(__file__).parents[2] / "book" / "chapters" / "04_what_each_structure_teaches.ipynb"


def test_a_cell_is_bold_where_it_stands_the_correction_and_has_a_ring_where_stage_one_was_not_learnt(taught):
    summary = analysis.summary(analysis.grid(taught()))
    unlearnt = summary.loc["sorting / shuffled set / full"]
    assert draw._written(summary.loc["sorting / set / attention"], analysis.BETTER) == "<b>98%</b>"
    assert draw._written(unlearnt, analysis.BETTER) == "52%°"
    assert draw._written(unlearnt, analysis.SOONER) == "·°"


def test_figures_of_a_part_of_the_grid_say_what_was_not_run(taught):
    found = analysis.grid(taught())
    also = found[found["cell"] == "sorting / random init"].assign(cell="haystack / random init", task="haystack")
    wider = draw.heat_map(pd.concat([found, also]), ["set"], ["full"]).data[0]
    assert wider.customdata[1][0] == "not run" and np.isnan(wider.z[1][0]) and np.isfinite(wider.z[1][1])
    heat = draw.heat_map(found, ["set", "eca"], list(skills.TRANSFERS))
    first = heat.data[0]
    assert first.y == ("random init", "set"), "the baseline first, and no line of what has not run"
    assert first.z[0][0] == 0 and "seed 5: 55.0%, never at 90 %" in first.customdata[0][0]
    assert first.z[1][0] == pytest.approx(-0.2)
    assert "seed 5: 35.0%, never at 90 %" in first.customdata[1][0]
    sooner = draw.heat_map(found, ["set"], ["full", "attention"], analysis.SOONER)
    assert (sooner.data[0].z[1][0], sooner.data[2].z[1][0]) == (0, pytest.approx(np.log2(10), abs=1e-3))
    assert list(draw.heat_map(found, ["set", "shuffled set"], ["full", "attention"], analysis.SOONER).data[0].y) == [
        "random init",
        "set",
    ], "as the sentence counts"
    assert sooner.data[3].text[1] == "<b>200</b>" and "10.00 times as soon" in sooner.data[2].customdata[1][0]
    assert [button.label for button in heat.layout.updatemenus[0].buttons] == list(skills.TRANSFERS)


def test_a_stage_one_has_a_dot_a_seed_however_many_cells_it_stands_before(taught):
    fig = draw.stage_ones(analysis.grid(taught()), ["shuffled set", "set", "eca"])
    dots = [(trace.name, list(trace.x)) for trace in fig.data if trace.mode == "markers"]
    assert dots == [("set", [1.0] * 6), ("shuffled set", [0.5] * 6)], "the best learnt first"


@pytest.fixture
def printed(programs, answered, tmp_path, capsys, monkeypatch) -> Callable[[int], list[str]]:
    """What a solution that trains prints at smoke scale."""
    monkeypatch.setattr(registry, "RULES", dict(registry.RULES))
    monkeypatch.setattr("structure_first.runs.runner.worker_count", lambda *_: 1)
    monkeypatch.chdir(CHAPTER.parent)

    def run(solution: int) -> list[str]:
        exec(programs(CHAPTER.stem)[solution], answered(CHAPTER.stem) | {"out": tmp_path})
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize(
    ("solution", "cells"), [(0, set(skills.TRANSFERS)), (2, {"identity", "shuffled", "two tokens"})]
)
def test_a_solution_that_runs_cells_prints_the_accuracy_of_each(solution, cells, printed):
    said = printed(solution)
    medians = {name.strip(): float(value) for name, _, value in (line.rpartition(" ") for line in said[1:-1])}
    assert said[0] == "cell" and set(medians) == cells
    assert all(0 <= value <= 1 for value in medians.values()) and max(medians.values()) > 0


def test_the_composed_model_learns_from_stage_two_on(printed):
    (said,) = printed(1)
    accuracy = literal_eval(said)
    assert len(accuracy) == 5 and all(0 <= value <= 1 for value in accuracy), "at steps 0, 5, 10, 15 and 20"


def test_the_solutions_that_train_are_three(programs):
    assert len(programs(CHAPTER.stem)) == 3
