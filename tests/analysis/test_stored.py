"""What counts as stored evidence: today's rows alone, with their factors, and of seeds that nothing else looked at."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from structure_first.analysis.stored import beside, live_folder, of_today, sizes, stored, with_factors
from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.experiments import additive, downstream, haystack, published, skills, substitutive
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.jobs import Replica
from structure_first.runs.planning import chosen, plan
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

RESULTS = Path(__file__).parents[2] / "book" / "results"
TASK = Phase("haystack", Stage(), {"pairs": 2})
WARM = Recipe(Phase("identity", Stage(), {"length": 3}), Transfer(), TASK)
CELLS = {
    "random init": Cell(Recipe(None, None, TASK), Factors("haystack")),
    "copying first": Cell(WARM, Factors("haystack", "identity", "full", share=0.1)),
}
TRIAL = Experiment("trial", "", lambda scale: {} if scale == "gpu" else CELLS, {})
# What each search looked at, and what is evidence beside it: what is stored of it, and what a chapter runs live.
SEARCHES = (
    (haystack.SEARCH, haystack.EXPERIMENT, haystack.TUNING),
    (haystack.TUNING, haystack.EXPERIMENT, haystack.SEARCH),
    (skills.TUNING, skills.EXPERIMENT, skills.TUNED, skills.DRAWN),
    (additive.TUNING, additive.EXPERIMENT, additive.FORMER, additive.UNTUNED, substitutive.EXPERIMENT),
    (downstream.TUNING, downstream.TUNED, additive.FORMER),
)
LIVE = [each for each in EXPERIMENTS.values() if each.live]  # what chapters train


@pytest.fixture
def keep(tmp_path, rows_of):
    def keep(cell, recipe, values, scale="laptop", stage=2):
        run = f"{cell} {recipe.key} {scale}"
        rows = rows_of({(cell, seed): value for seed, value in enumerate(values)}, run=run, scale=scale, stage=stage)
        Store(tmp_path / "trial").append(rows, {run: {"configuration": recipe.key}})

    return keep


def test_the_rows_are_todays_of_the_largest_scale_that_has_some(tmp_path, keep):
    keep("random init", CELLS["random init"].recipe, [0.1, 0.2])
    keep("random init", CELLS["random init"].recipe, [0.3], scale="smoke")
    keep("copying first", WARM, [0.5, 0.6, 0.7])
    keep("copying first", replace(WARM, body=Body(width=32)), [0.9] * 4)  # a former recipe of that name
    keep("copying last", WARM, [0.9])  # a former cell
    keep("random init", CELLS["random init"].recipe, [0.9], scale="gpu")  # which has no cells today
    keep("random init", replace(WARM, body=Body(width=32)), [0.9], scale="paper")
    found = stored(TRIAL, tmp_path)
    assert found["value"].to_list() == [0.5, 0.6, 0.7, 0.1, 0.2] and set(found["scale"]) == {"laptop"}
    assert list(of_today(TRIAL, tmp_path)) == ["laptop", "smoke"]


def test_a_few_cells_of_a_larger_scale_do_not_take_the_place_of_all_the_others(tmp_path, keep):
    cells = CELLS | {f"width {width}": replace(WARM, body=Body(width=width)) for width in (32, 64)}
    four = replace(TRIAL, cells=lambda scale: cells)
    recipes = four.recipes("laptop")
    for cell, recipe in recipes.items():
        keep(cell, recipe, [0.5])
    keep("width 32", recipes["width 32"], [0.9], scale="paper")
    assert set(stored(four, tmp_path)["scale"]) == {"laptop"} and list(of_today(four, tmp_path)) == ["paper", "laptop"]
    keep("width 64", recipes["width 64"], [0.9], scale="paper")
    assert set(stored(four, tmp_path)["scale"]) == {"paper"}


def test_factors_stand_beside_the_rows_of_their_cells_and_beside_no_stage_one(tmp_path, keep):
    before = Replica("copying first", WARM, 0).before
    keep("copying first", WARM, [0.5])
    keep(before.cell, before.recipe, [0.9], stage=1)
    found = stored(TRIAL, tmp_path).set_index("stage")
    told = found.loc[2, ["task", "front", "carried", "share", "text"]].to_list()
    assert told == ["haystack", "identity", "full", 0.1, 1.0]
    assert found.loc[1, ["task", "front", "carried", "share", "text"]].isna().all()


def test_live_rows_get_their_factors_too(rows_of):
    found = with_factors(rows_of({("random init", 3): 0.5, ("copying first", 3): 0.6}), TRIAL)
    assert found["front"].to_list() == ["random init", "identity"] and found["seed"].to_list() == [3, 3]


def test_where_nothing_of_today_is_stored_it_says_in_a_line_what_to_do(tmp_path, keep):
    line = "no stored results of trial that today's cells make; restore book/results or make them: structure-first run"
    for _ in range(2):
        for read in (stored, sizes):
            with pytest.raises(UserError, match=line) as caught:
                read(TRIAL, tmp_path)
            assert "\n" not in str(caught.value)
        keep("copying first", replace(WARM, body=Body(width=32)), [0.9])  # nor does this help


def seeds_of(experiment: Experiment) -> set[int]:
    """Those of stored models, and those that it would run; a stage one that is stored alone is no evidence of it."""
    declared = range(experiment.first_seed, experiment.first_seed + max(experiment.seeds.values()))
    return set(declared) | stored_seeds(experiment.name)


@cache
def stored_seeds(name: str) -> frozenset[int]:
    rows = Store(RESULTS / name).rows()
    return frozenset(rows.loc[rows["stage"] == 2, "seed"])


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search[0].name)
def test_what_a_search_looked_at_is_no_evidence(search):
    searched = seeds_of(search[0])
    for experiment in search[1:]:
        assert not searched & (seeds_of(experiment) | set(experiment.live_seeds)), experiment.name


@pytest.mark.parametrize("live", LIVE, ids=lambda live: live.name)
def test_live_seeds_are_of_no_stored_row(live):
    assert live.live_seeds
    for experiment in EXPERIMENTS.values():
        assert not set(live.live_seeds) & seeds_of(experiment), experiment.name


def test_the_stage_one_of_the_published_live_run_is_stored():
    live = published.EXPERIMENT
    missing = plan(chosen(live, "laptop", live.live), "laptop", live.live_seeds, Store(RESULTS / live.name), "cpu")
    assert {job.stage for job in missing.jobs} == {2}, "a quarter of an hour before anything is to be seen"


def test_a_readers_run_stands_beside_the_stored_one(tmp_path, rows_of):
    stored_runs = {("random init", seed): 0.2 + seed / 10 for seed in range(3)}
    manifest = {"random init": {"configuration": Replica("random init", CELLS["random init"].recipe, 0).configuration}}
    Store(tmp_path / "trial").append(rows_of(stored_runs, run="random init"), manifest)

    def told(value: float, cell: str = "random init", **columns) -> str:
        found = beside(rows_of({(cell, 7): value}).assign(**columns), TRIAL, results=tmp_path)
        return re.sub(" +", " ", found)  # a table's columns are as wide as what is in them

    assert "1 of 1 cells end inside" in told(0.3)
    assert "lies outside the range of 3 in 50% of cases;" in told(0.3), "the lowest or the highest of four alike"
    early = {("random init", seed): {500: 0.1, 10_000: 0.3} for seed in range(3)}
    Store(tmp_path / "trial").append(rows_of(early, run="random init"), manifest)
    mine = rows_of({("random init", 7): {500: 0.1}})
    assert "1 of 1 cells end inside" in beside(mine, TRIAL, results=tmp_path, part=0.05)
    assert "0 of 1 cells end inside" in beside(mine, TRIAL, results=tmp_path)
    Store(tmp_path / "trial").append(rows_of(stored_runs, run="random init"), manifest)
    assert "| random init | 1 | 0.300 | 3 | 0.200 | 0.400 | yes |" in told(0.3)
    assert "0 of 1 cells end inside" in told(0.41)
    assert "| random init | 1 | nan | 3 | 0.200 | 0.400 | no |" in told(float("nan"))
    assert "no rows of these cells are stored" in told(0.3, "copying first")
    assert "at scale `smoke` no rows" in told(0.3, scale="smoke")


def test_a_readers_own_rows_go_to_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("structure_first.analysis.stored.RESULTS", tmp_path / "results")
    (tmp_path / "file").write_text("")
    assert live_folder(f"{tmp_path}/live/new") == tmp_path / "live" / "new"
    for out in ("results", "results/haystack", "live/../results", "file"):
        with pytest.raises(UserError, match="out must be a folder outside of"):
            live_folder(tmp_path / out)
