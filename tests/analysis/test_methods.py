"""The methods page says what the recipes say."""

from structure_first.analysis.methods import SHOWN, methods, worded
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.training.stage import Stage


def cells(scale: str) -> dict[str, Recipe]:
    task = Phase("haystack", Stage(steps=7 if scale == "laptop" else 1_000, warmup=0, lr=2e-3), {"pairs": 2})
    first = Phase("identity", Stage(mastery=0.98), {"length": 3}, tied=True)
    return {} if scale == "gpu" else {"a": Recipe(None, None, task), "b": Recipe(first, None, task, Body(width=32))}


def test_every_setting_stands_at_every_scale():
    found = methods(Experiment("trial", "", cells, {}))
    assert list(found.columns) == ["laptop", "paper"]
    assert found.loc["stage two: updates"].tolist() == ["7", "1,000"]
    assert found.loc["stage one: data", "laptop"] == "identity"
    assert found.loc["stage one: stops at an accuracy of", "paper"] == "0.98"
    assert found.loc["stage one: head tied to the embeddings", "laptop"] == "yes"
    assert found.loc["stage two: of the data", "laptop"] == "pairs 2"
    assert found.loc["stage one: of the data", "laptop"] == "length 3, vocab 100", "its default too"
    assert found.loc["model: width", "laptop"] == "16; 32"
    assert found.loc["cells", "laptop"] == "2"


def test_a_stage_one_that_is_a_recipe_tells_of_its_stages():
    def nested(scale: str) -> dict[str, Recipe]:
        return {name: Recipe(recipe, None, recipe.stage_two) for name, recipe in cells(scale).items()}

    found = methods(Experiment("trial", "", nested, {}))
    assert found.loc["stage one: data", "laptop"] == "haystack; identity"
    assert not [line for line in found.index if line.startswith("stage one: width")]


def test_a_stage_one_that_begins_otherwise_has_its_own_model():
    found = methods(EXPERIMENTS["skills_tuned"])
    first = "standard deviation of first weights"
    assert found.loc[f"model: {first}", "laptop"] == "0.25; 0.02"
    assert found.loc[f"model in stage one, where it begins otherwise: {first}", "laptop"] == "0.25"


def test_many_values_are_their_range_or_how_many():
    assert worded([1e-3, 4e-3]) == "0.001; 0.004"
    assert worded([5, 3, 9, 2, 7_000]) == "2 to 7,000"
    assert worded(list("abcdef")) == f"a; b; c; d and {6 - SHOWN} more"


def test_each_experiment_of_the_book_has_a_table():
    for experiment in EXPERIMENTS.values():
        assert {"stage two: data", "stage two: learning rate"} <= set(methods(experiment).index), experiment.name
