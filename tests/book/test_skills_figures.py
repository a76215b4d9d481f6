"""Chapter 04: the grid is read from its rows as it stands there, and its exercises' solutions run."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from structure_first.book import skills_figures
from structure_first.data import registry
from structure_first.evidence.store import COLUMNS
from structure_first.experiments import skills
from structure_first.runs.jobs import Replica
from structure_first.runs.runner import run

CHAPTER = Path(__file__).parents[2] / "book" / "chapters" / "04_what_each_structure_teaches.ipynb"
SOLUTIONS = [
    code
    for cell in nbformat.read(CHAPTER, as_version=4).cells
    if cell.cell_type == "markdown"
    for code in re.findall(r"~~~python\n(.*?)~~~", cell.source, re.DOTALL)
]
ACCURACY = {
    "sorting / random init": 0.5,
    "sorting / set / full": 0.3,
    "sorting / set / attention": 0.95,
    "sorting / set / permuted": 0.5,
    "sorting / shuffled set / full": 0.5,
    "sorting / shuffled set / same start": 0.5,
}


def table(seeds: int = 6) -> pd.DataFrame:
    """Rows of cells whose every seed is 0.01 better than the one before."""
    lines = [
        ("skills", "laptop", cell, 2, seed, step, 1000, 1000, "accuracy", value * step / 200 + seed / 100, "run")
        for cell, value in ACCURACY.items()
        for seed in range(seeds)
        for step in (100, 200)
    ]
    for cell in ACCURACY:
        if "init" not in cell:
            lines += [
                ("skills", "laptop", cell, 2, seed, 0, 0, 0, "mastery", 0.5 if "shuffled" in cell else 1.0, "run")
                for seed in range(seeds)
            ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def test_the_grid_pairs_every_seed_with_random_init():
    found = skills_figures.grid(table()).set_index(["cell", "seed"])
    assert found.loc[("sorting / set / full", 3), "gain"] == pytest.approx(-0.2)
    assert found.loc[("sorting / set / attention", 3), ["task", "source", "transfer"]].tolist() == [
        "sorting",
        "set",
        "attention",
    ]
    assert found.loc[("sorting / set / attention", 3), "steps"] == 200
    assert np.isinf(found.loc[("sorting / set / full", 3), "steps"])
    # Both never reached 90 %, and count as what stage two has; the third did, at 200 of 2,000 steps.
    assert found.loc[("sorting / set / full", 3), "sooner"] == 0
    assert 2 ** found.loc[("sorting / set / attention", 3), "sooner"] == pytest.approx(10)


def test_the_summary_knows_harm_from_help_and_what_was_not_learnt():
    summary = skills_figures.summary(skills_figures.grid(table()))
    full, attention = summary.loc["sorting / set / full"], summary.loc["sorting / set / attention"]
    assert full["high"] < 0 < attention["low"] and attention["solved"] == 1 and full["solved"] == 0
    assert full["p"] == attention["p"] == 2 / 2**6
    assert summary.loc["sorting / shuffled set / full", "p"] == 1
    assert skills_figures._written(attention, skills_figures.BETTER) == "<b>98%</b>"
    unlearnt = summary.loc["sorting / shuffled set / full"]
    assert skills_figures._written(unlearnt, skills_figures.BETTER) == "52%°"
    assert skills_figures._written(unlearnt, skills_figures.SOONER) == "never°"


def test_the_tally_counts_what_stands_the_correction():
    found = skills_figures.tally(skills_figures.grid(table()), ["set"], ["full", "attention"])
    assert found.loc["accuracy"].T.to_dict("list") == {"full": [1, 0, 1, 0, 1], "attention": [1, 1, 0, 1, 0]}
    assert found.loc["steps to 90 %"].T.to_dict("list") == {"full": [1, 0, 0, 0, 0], "attention": [1, 1, 0, 1, 0]}


def test_the_gains_that_stand_are_named_and_harm_is_not():
    grid = skills_figures.grid(table())
    found = skills_figures.standing(grid, ["set"], ["full", "attention"])
    assert found.T.to_dict("list") == {
        ("sorting / set / attention", "accuracy"): ["98%", "+45.0%", "100% of 6", "0.031"],
        ("sorting / set / attention", "steps to 90 %"): ["200", "10.00 times as soon", "100% of 6", "0.031"],
    }
    assert skills_figures.standing(grid, ["set"], ["full"]).empty


def test_the_bill_counts_both_stages_of_every_seed():
    cells = ["sorting / random init", "sorting / set / full"]
    before = Replica(cells[1], skills.TUNED.recipes("laptop")[cells[1]], 0).before.cell
    lines = [
        ("skills", "laptop", cells[0], 2, seed, 100, 9, 3e9, "accuracy", 0.5 + seed / 5, "run") for seed in range(4)
    ]
    lines += [("skills", "laptop", cells[1], 2, seed, 50, 9, 1e9, "accuracy", 0.95, "run") for seed in range(3)]
    lines += [
        ("skills", "laptop", before, 1, seed, step, 9, step * 1e9, "accuracy", 0.9, "run")
        for seed in range(3)
        for step in (10, 20 + seed)
    ]
    found = skills_figures.bill(pd.DataFrame(lines, columns=list(COLUMNS)), cells)
    assert found.loc[cells[0]].tolist() == ["2 of 4", "0", "never", ""], "half of the seeds are no median"
    assert found.loc[cells[1]].tolist() == ["3 of 3", "21", "50", "22"]


def test_controls_stand_beside_what_they_control():
    shown = skills_figures.controls(skills_figures.grid(table()))
    assert list(dict.fromkeys(shown["source"])) == ["random init", "set", "shuffled set", "set, permuted"]
    assert set(shown.loc[shown["source"] == "set", "cell"]) == {"sorting / set / full"}


def test_figures_of_a_part_of_the_grid_say_what_was_not_run():
    found = skills_figures.grid(table())
    heat = skills_figures.heat_map(found, ["set", "eca"], list(skills.TRANSFERS))
    first = heat.data[0]
    assert first.z[0][0] == pytest.approx(-0.2) and np.isnan(first.z[1][0]) and first.customdata[1][0] == "not run"
    assert "seed 5: 35.0%, never at 90 %" in first.customdata[0][0]
    sooner = skills_figures.heat_map(found, ["set"], ["full", "attention"], skills_figures.SOONER)
    assert (sooner.data[0].z[0][0], sooner.data[2].z[0][0]) == (0, pytest.approx(np.log2(10), abs=1e-3))
    assert sooner.data[3].text[0] == "<b>200</b>" and "10.00 times as soon" in sooner.data[2].customdata[0][0]
    assert [button.label for button in heat.layout.updatemenus[0].buttons] == list(skills.TRANSFERS)
    ranking = skills_figures.ranking(found, ["set", "eca"], list(skills.TRANSFERS))
    assert [trace.name for trace in ranking.data if trace.name] == [*skills.TRANSFERS, "random init"]
    assert [len(trace.x) for trace in ranking.data[:4:2]] == [6, 0], "a small dot for every seed"
    assert skills_figures.beside_the_paper(found)["here, median"].eq("not run").all()


@pytest.mark.parametrize("solution", SOLUTIONS, ids=["eleventh", "composed", "broken"])
def test_the_solutions_run(solution, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "RULES", dict(registry.RULES))
    names = {"skills": skills, "run": run, "Path": Path, "scale": "smoke", "out": tmp_path}
    monkeypatch.chdir(CHAPTER.parent)
    exec(compile(solution, "solution", "exec"), names)
    shown = capsys.readouterr().out
    assert all(cell in shown for cell in names.get("cells", [])) and "0." in shown
