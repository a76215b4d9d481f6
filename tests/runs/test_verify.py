"""Rows that are made again are the stored ones, and others are found out."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.experiments import skills
from structure_first.model.transfer import Transfer
from structure_first.runs.planning import chosen, current, first_part
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.runs.runner import run
from structure_first.runs.verify import compared, measured, verify
from structure_first.training.stage import Stage

RESULTS = Path(__file__).parents[2] / "book" / "results"
TASK = Phase("haystack", Stage(steps=12, batch=8, warmup=2, held_out=16, evaluate_every=4), {"pairs": 2})
COPY = replace(TASK, source="identity", settings={"length": 3, "vocab": 5}, tied=True)
CELLS = {"slow": Recipe(None, None, TASK), "fast": Recipe(None, None, TASK.at(lr=0.1))}
WARM = Experiment("warm", "", lambda scale: {"copied": Recipe(COPY, Transfer(), TASK)}, {"smoke": 2})
EXPERIMENT = Experiment("tiny", "Is it the same?", lambda scale: CELLS, {"smoke": 2})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for seed in range(2):  # a model a program, as `verify` makes them
        run(EXPERIMENT, "smoke", [seed], folder, "cpu", workers=1, cells=["slow"])
        run(EXPERIMENT, "smoke", [seed], folder, "cpu", workers=1, cells=["fast"])
    return folder


def test_what_is_made_again_on_the_same_machine_has_the_same_bits(results):
    found = verify(EXPERIMENT, "smoke", results, workers=1)
    assert len(found) == 4 and found["bits"].all() and found["holds"].all() and found["same machine"].all()
    assert found["last"].eq(0).all() and (found["spread"] > 0).all()
    assert set(verify(EXPERIMENT, "smoke", results, ["slow"], workers=1)["cell"]) == {"slow"}
    assert len(verify(EXPERIMENT, "smoke", results, sample=1, workers=1)) == 1


def test_what_had_a_stage_one_has_the_same_bits_too(tmp_path):
    for seed in range(2):
        run(WARM, "smoke", [seed], tmp_path, "cpu", workers=1)
    found = verify(WARM, "smoke", tmp_path, workers=1)
    assert len(found) == 2 and found["bits"].all() and found["last"].eq(0).all()


def test_rows_that_other_code_made_do_not_hold(results, tmp_path):
    store = Store(shutil.copytree(results, tmp_path, dirs_exist_ok=True) / "tiny")
    rows, runs = store.rows(), store.manifest()["runs"]
    rows.loc[rows["cell"] == "slow", "value"] *= 1.05
    store.append(rows, runs)
    found = verify(EXPERIMENT, "smoke", tmp_path, workers=1).set_index("cell")
    assert not found.loc["slow", "holds"].any() and found.loc["fast", "holds"].all()


def test_rows_of_another_corpus_are_refused_before_any_training(results, tmp_path, monkeypatch):
    store = Store(shutil.copytree(results, tmp_path, dirs_exist_ok=True) / "tiny")
    rows, runs = store.rows(), store.manifest()["runs"]
    store.append(rows, {name: run | {"source": run["source"] | {"digest": 17}} for name, run in runs.items()})
    monkeypatch.setattr("structure_first.runs.verify.run", None)
    with pytest.raises(UserError, match="slow was trained on another corpus than the one that is packed here"):
        verify(EXPERIMENT, "smoke", tmp_path, ["slow"], workers=1)


def test_rounding_that_grows_holds_within_the_spread_and_no_further(results):
    rows = Store(results / "tiny").rows().query("cell == 'slow'")
    stored = rows[rows["seed"] == 0]
    spread = compared(stored, stored, rows)["spread"]
    last = stored["step"] == stored["step"].max()
    for part, holds in ((0.9, True), (1.1, False)):
        again = stored.assign(value=stored["value"].where(~last, stored["value"] + part * spread))
        assert compared(stored, again, rows)["holds"] is holds
    sooner = stored[stored["step"] < 12]
    assert not compared(stored, sooner, rows)["holds"], "a measurement is missing"
    near = sooner.assign(value=sooner["value"].where(sooner["step"] < sooner["step"].max(), stored["value"].iloc[-1]))
    assert compared(stored, near, rows, stops=True)["holds"], "it may have mastered its task sooner"


@pytest.mark.parametrize(("at", "holds"), [((4, 12), True), ((12,), False), ((), False)])
def test_what_diverged_holds_where_it_diverged_alike(rows_of, at, holds):
    def rows(diverged):
        return rows_of({("a", 0): {0: 1.0, 4: 0.9, 8: 0.8, 12: 0.7} | dict.fromkeys(diverged, np.nan)}, "loss")

    stored = rows((4, 12))
    found = compared(stored, rows(at), stored)
    assert (found["bits"], found["holds"]) == (holds, holds)


def test_rows_of_other_settings_are_not_there_to_be_verified(results):
    changed = replace(EXPERIMENT, cells=lambda scale: {"slow": Recipe(None, None, TASK.at(lr=0.5))})
    with pytest.raises(UserError, match=r"no rows of tiny at scale smoke are stored in .*; run it first"):
        verify(changed, "smoke", results)


def test_a_stored_model_begins_as_todays_code_makes_it(tmp_path):
    """Past the warm-up of its rate; `.ci/run` makes the whole of it again."""
    one = chosen(skills.EXPERIMENT, "laptop", ["addition / random init"])
    again = measured(run(one, "laptop", [306], tmp_path, "cpu", workers=1, part=0.2))
    rows = current(one, "laptop", Store(RESULTS / "skills").rows())
    stored = measured(first_part(one, "laptop", rows, 0.2))
    assert sorted(again["step"].unique()) == [0, 200, 400]
    assert compared(stored[stored["seed"] == 306], again, stored)["holds"]
