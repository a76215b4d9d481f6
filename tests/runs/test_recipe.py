"""Keys: they see all that makes a row, and nothing else; the stored rows have today's."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import structure_first.versions
from structure_first.evidence.store import Store
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.planning import current
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe, brief, digest, plain
from structure_first.training.stage import Stage

RESULTS = Path(__file__).parents[2] / "book" / "results"
GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
COPY = Phase("identity", Stage(steps=5, warmup=1), {"length": 3}, tied=True)
RECIPE = Recipe(COPY, Transfer(attention="permute"), Phase("haystack", Stage(), {"pairs": 2}))
CHANGES = {
    "a source": {"stage_one": replace(COPY, source="reverse")},
    "a setting": {"stage_one": replace(COPY, settings={"length": 4})},
    "a stage": {"stage_one": COPY.at(lr=0.1)},
    "a tied head": {"stage_one": replace(COPY, tied=False)},
    "dropout": {"stage_one": replace(COPY, dropout=0.1)},
    "no stage one": {"stage_one": None, "transfer": None},
    "a recipe in front": {"stage_one": Recipe(COPY, Transfer(), replace(COPY, source="reverse"))},
    "a transfer": {"transfer": Transfer(mlp="permute")},
    "a size": {"body": Body(width=32)},
    "the weights": {"body": Body(init=0.1)},
    "the embeddings": {"body": Body(init_embedding=0.1)},
    "stage one's weights": {"body_stage_one": Body(init=0.1)},
    "the precision": {"precision": "bfloat16"},
}


def read(stored: dict) -> Recipe:
    """The recipe that a manifest tells of, as `plain` wrote it."""
    kinds = {"transfer": Transfer, "body": Body, "body_stage_one": Body, "stage_two": phase}
    kinds["stage_one"] = lambda **stage: read(stage) if "stage_two" in stage else phase(**stage)
    kinds["beside"] = lambda **phases: {name: phase(**each) for name, each in phases.items()}
    told = {name: kinds[name](**value) if name in kinds and value else value for name, value in stored.items()}
    return Recipe(**told)


def phase(stage: dict, **rest) -> Phase:
    return Phase(stage=Stage(**{**stage, "curriculum": tuple(stage.get("curriculum", ()))}), **rest)


def test_every_change_changes_the_key():
    keys = {name: replace(RECIPE, **change).key for name, change in CHANGES.items()}
    assert len({RECIPE.key, *keys.values()}) == 1 + len(CHANGES)
    assert {replace(RECIPE).key, read(plain(RECIPE)).key} == {RECIPE.key}


@pytest.mark.parametrize("change", [{}, *CHANGES.values()], ids=["none", *CHANGES])
def test_a_manifest_tells_the_whole_recipe(change):
    recipe = replace(RECIPE, **change)
    assert read(json.loads(json.dumps(plain(recipe)))) == recipe


def test_a_field_that_comes_later_changes_no_key():
    @dataclass(frozen=True)
    class Later(Recipe):
        colour: str = "grey"
        shades: dict = field(default_factory=dict)

    later = Later(*(getattr(RECIPE, name) for name in ("stage_one", "transfer", "stage_two")))
    assert later.key == RECIPE.key and replace(later, colour="red").key != RECIPE.key
    assert brief(replace(later, shades={"a": 1})) == brief(RECIPE) | {"shades": {"a": 1}}


@pytest.mark.parametrize("rule", ["identity", "haystack", "permute", "keep", "init", "stream", "training"])
def test_a_new_version_of_a_rule_changes_the_keys_of_what_it_makes(monkeypatch, rule):
    before = RECIPE.key
    monkeypatch.setitem(structure_first.versions.VERSIONS, rule, 2)
    assert replace(RECIPE).key != before
    monkeypatch.undo()
    assert replace(RECIPE).key == before


@pytest.mark.parametrize("rule", ["reverse", "rotate", "code"])
def test_a_new_version_of_another_rule_does_not(monkeypatch, rule):
    before = RECIPE.key
    monkeypatch.setitem(structure_first.versions.VERSIONS, rule, 7)
    assert replace(RECIPE).key == before


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("shuffled:dyck", {"shuffled", "dyck"}),
        ("set+sort", {"set", "sort"}),
        ("code/bytes", {"code", "bytes"}),
        ("code@1/bytes", {"code@1", "bytes"}),
    ],
)
def test_a_phase_knows_the_rules_that_make_its_data(name, rules):
    assert Phase(name, Stage()).rules == rules


def test_every_experiment_with_rows_has_its_keys_written_down():
    assert {name for name in EXPERIMENTS if (RESULTS / name).exists()} <= set(GOLDEN) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu", "paper"])
def test_keys_stay(name, scale):
    """A key that changes makes stored rows old: then the golden file is made anew, and the rows with it."""
    recipes = EXPERIMENTS[name].recipes(scale)
    assert digest({cell: recipe.key for cell, recipe in recipes.items()}) == GOLDEN[name][scale]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_stored_row_is_what_todays_cells_make(name):
    store = Store(RESULTS / name)
    rows, runs = store.rows(), store.manifest()["runs"]
    assert set(runs) == set(rows["run"])
    for run in runs.values():
        assert read(run["recipe"]).key == run["configuration"]
    for scale, part in rows.groupby("scale"):
        old = set(part["cell"]) - set(current(EXPERIMENTS[name], scale, part)["cell"])
        assert not old, "these rows are of other settings than the cells of their names have"


def test_factors_stand_in_columns():
    cells = {"a": Cell(RECIPE, Factors("haystack", "identity", share=0.1)), "b": replace(RECIPE, body=Body(width=32))}
    experiment = Experiment("tiny", "", lambda scale: cells, {})
    factors = experiment.factors("smoke")
    assert factors.loc["a", ["task", "front", "share", "text"]].to_list() == ["haystack", "identity", 0.1, 1.0]
    assert factors.loc["b", "front"] == "random init" and experiment.recipes("smoke")["b"].body.width == 32
