"""Chapter 04: the grid is read from its rows as it stands there."""

import numpy as np
import pandas as pd
import pytest

from structure_first.analysis import skills as analysis
from structure_first.experiments import skills
from structure_first.runs.jobs import Replica


def test_the_grid_pairs_every_seed_with_random_init(taught):
    found = analysis.grid(taught()).set_index(["cell", "seed"])
    assert found.loc[("sorting / set / full", 3), "gain"] == pytest.approx(-0.2)
    told = found.loc[("sorting / set / attention", 3), ["task", "front", "carried"]].tolist()
    assert told == ["sorting", "set", "attention"]
    assert found.loc[("sorting / set / attention", 3), "steps"] == 200
    assert np.isinf(found.loc[("sorting / set / full", 3), "steps"])
    # Both never reached 90 %, and count as what stage two has; the third did, at 200 of 2,000 steps.
    assert found.loc[("sorting / set / full", 3), "sooner"] == 0
    assert 2 ** found.loc[("sorting / set / attention", 3), "sooner"] == pytest.approx(10)


def test_a_seed_without_a_baseline_has_no_gain_and_lends_its_place_to_no_other(taught):
    rows = taught()
    late = rows[(rows["front"] != "random init") | (rows["seed"] > 1)].sample(frac=1, random_state=0)
    gain = analysis.grid(late).set_index(["cell", "seed"])["gain"]["sorting / set / full"].sort_index()
    assert gain[[0, 1]].isna().all() and gain[[2, 3, 4, 5]].to_list() == pytest.approx([-0.2] * 4)


def test_the_summary_knows_harm_from_help_and_what_was_not_learnt(taught):
    summary = analysis.summary(analysis.grid(taught()))
    full, attention = summary.loc["sorting / set / full"], summary.loc["sorting / set / attention"]
    assert full["high"] < 0 < attention["low"] and attention["solved"] == 1 and full["solved"] == 0
    assert full["p"] == attention["p"] == 2 / 2**6
    unlearnt = summary.loc["sorting / shuffled set / full"]
    assert unlearnt["p"] == 1 and unlearnt["learnt"] == 0.5


def test_the_gain_of_a_cell_is_the_median_of_the_differences(taught):
    rows = taught(seeds=5)
    last = (rows["step"] == 200) & (rows["metric"] == "accuracy")
    for cell, values in {
        "sorting / random init": [0.0, 0.1, 0.9, 0.9, 0.9],
        "sorting / set / full": [0.1, 0.2, 0.3, 1.0, 1.0],
    }.items():
        rows.loc[last & (rows["cell"] == cell), "value"] = values
    assert analysis.summary(analysis.grid(rows)).loc["sorting / set / full", "gain"] == pytest.approx(0.1)


def test_a_sentence_counts_what_stands_the_correction_and_what_is_left_out(taught):
    grid = analysis.grid(taught())
    said = analysis.said(grid, ["set"], ["full", "attention"])
    assert said.startswith(
        "**Surely better than random init: 1 of 2 cells (*sorting / set / attention*); surely worse: 1.**"
    )
    assert said.endswith("By their medians 1 of all are better and 1 worse.")
    sooner = analysis.said(grid, ["set"], ["full", "attention"], analysis.SOONER)
    assert "sooner than random init: 1 of 2 cells (*sorting / set / attention*); surely later: 0.**" in sooner
    assert analysis.said(grid, ["set"], ["full"]).startswith("**Surely better than random init: 0 of 1 cells; surely")
    left = analysis.left_said(grid, ["set"], ["full", "attention"])
    assert left == "With at most half of their seeds at 90 %: 1 of the 2 cells drawn, as a dot."
    more = analysis.left_said(grid, ["set", "shuffled set"], ["full", "attention"])
    assert "1 of the 2 cells drawn, as a dot. Left out" in more, "what is left out is no dot"
    assert more.endswith("none is surely later: shuffled set.")
    unsolved = analysis.left_said(grid, ["set"], ["full"])
    assert unsolved.endswith("none is surely later: sorting, set."), "the cell that solves it is not among these"


def test_the_cells_that_come_to_ninety_per_cent_are_listed(taught):
    grid = analysis.grid(taught())
    found = analysis.reached(grid, ["set"], ["full", "attention"])
    line = ["200", "10.00 times as soon (10.00 to 10.00)", "6 of 6", "0.031"]
    assert found.T.to_dict("list") == {"sorting / set / attention": line}
    assert analysis.reached(grid, ["set"], ["full"]).empty


def test_sentences_say_what_was_learnt_and_what_is_worth_most(taught):
    grid = analysis.grid(taught())
    assert analysis.best_said(grid, ["set"], ["full", "attention"]) == (
        "- **sorting**: most from *set*, attention: +45 points (+45 to +45). By one part or rule above random init and "
        "by another below: 1 of 1 sources."
    )
    assert "another below: 0 of 1 sources" in analysis.best_said(grid, ["set"], ["attention"])
    grid.loc[grid["front"] == "set", "learnt"] = 0.95
    said = analysis.learnt_said(grid, ["set", "shuffled set"])
    assert said == "**1 of 2 sources were learnt to 90% or more, in the median**; not so: *shuffled set* 50%."
    assert analysis.learnt_said(grid, ["set"]).endswith("in the median**.")


def test_the_gains_that_stand_are_named_and_harm_is_not(taught):
    grid = analysis.grid(taught())
    found = analysis.standing(grid, ["set"], ["full", "attention"])
    assert found.T.to_dict("list") == {
        ("sorting / set / attention", "accuracy"): ["98%", "+45.0%", "6 of 6", "0.031"],
        ("sorting / set / attention", "steps to 90 %"): ["200", "10.00 times as soon", "6 of 6", "0.031"],
    }
    assert analysis.standing(grid, ["set"], ["full"]).empty


def test_the_bill_counts_both_stages_of_every_seed(rows_of):
    cells = ["sorting / random init", "sorting / set / full"]
    before = Replica(cells[1], skills.TUNED.recipes("laptop")[cells[1]], 0).before.cell
    alone = {(cells[0], seed): 0.5 + seed / 5 for seed in range(4)}
    after = {(cells[1], seed): {50: 0.95} for seed in range(3)}
    first = [
        rows_of({(before, seed): {step: 0.9}}, stage=1, flops=step * 10**9)
        for seed in range(3)
        for step in (10, 20 + seed)
    ]
    rows = [rows_of(alone, flops=3 * 10**9), rows_of(after, flops=10**9), *first]
    found = analysis.bill(pd.concat(rows), [*cells, "sorting / set / mlp"])
    assert found.loc[cells[0]].tolist() == ["2 of 4", "0", "never", ""], "half of the seeds are no median"
    assert found.loc[cells[1]].tolist() == ["3 of 3", "21", "50", "22"]
    assert list(found.index) == cells, "the third has not run"


def test_controls_stand_beside_what_they_control(taught):
    shown = analysis.controls(analysis.grid(taught()))
    assert list(dict.fromkeys(shown["front"])) == ["random init", "set", "shuffled set", "set, permuted"]
    cells = shown.groupby("front")["cell"].agg(set).to_dict()
    assert cells["set"] == {"sorting / set / full"} and cells["set, permuted"] == {"sorting / set / permuted"}
    assert cells["shuffled set"] == {"sorting / shuffled set / full"}, "a same start is another comparison"
    assert set(shown["carried"]) == {"full"}


def test_the_papers_cells_are_cells_and_say_where_they_have_not_run(taught):
    assert set(analysis.PAPER) <= set(skills.EXPERIMENT.recipes("laptop"))
    found = taught()
    assert analysis.beside_the_paper(analysis.grid(found))["here, median"].eq("not run").all()
    ours = found.replace({"cell": {"sorting / set / attention": "haystack / set / attention"}})
    line = analysis.beside_the_paper(analysis.grid(ours)).loc["haystack / set / attention"].to_list()
    assert line == ["88.9%", "97.5%", "6 of 6", "100%"]
