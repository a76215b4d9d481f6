"""The published recipe's settings, and that each rung of the ladder changes one thing for every front alike."""

import pandas as pd
import pytest

from structure_first.experiments.published import EXPERIMENT, RUNGS


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_nothing_warms_the_rate_up_and_nothing_is_tuned(scale):
    factors, recipes = EXPERIMENT.factors(scale), EXPERIMENT.recipes(scale)
    own = factors[(factors["swept"] == RUNGS[0])].index
    for cell in own:
        recipe = recipes[cell]
        assert recipe.body.init == 0.02 and recipe.body.init_embedding in (None, 0.02) and not recipe.body_stage_one
        for phase in filter(None, (recipe.stage_one, recipe.stage_two)):
            assert (phase.stage.warmup, phase.tied, phase.dropout, phase.stage.clip) == (0, True, 0.1, 1.0)
        if recipe.transfer:
            assert recipe.transfer.embeddings == recipe.transfer.positions == "fresh"
            assert recipe.stage_one.stage.batch == 64
            assert (recipe.stage_one.stage.steps == 2_500) == pd.isna(factors.loc[cell, "share"])  # else of the sweep


def test_the_rate_is_theirs_for_the_width():
    theirs, ours = (EXPERIMENT.recipes(scale) for scale in ("paper", "laptop"))
    for cell in theirs.keys() & ours.keys():
        rates = [recipes[cell].stage_two.stage.lr * recipes[cell].body.width for recipes in (theirs, ours)]
        assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("scale", ["laptop", "gpu", "paper"])
def test_what_stands_beside_a_tuned_baseline_has_as_many_tokens_as_set(scale):
    factors, recipes = EXPERIMENT.factors(scale), EXPERIMENT.recipes(scale)
    last = factors[(factors["task"] == "code") & (factors["swept"] == RUNGS[2])]
    fronts = {front: recipes[cell] for cell, front in last["front"].items() if recipes[cell].stage_one}
    assert {"dyck", "eca", "nca", "text", "shuffled set", "random tokens"} < set(fronts)
    tokens = {}
    for front, recipe in fronts.items():
        stage, context = recipe.stage_one.stage, recipe.stage_two.settings["context"]
        length = context + 1 if front == "text" else recipe.stage_one.make().length
        assert length <= context + 1, front
        tokens[front] = stage.sequences * length
        if front in ("dyck", "eca", "nca", "random tokens"):
            assert length > 0.8 * context, f"{front} leaves the context empty"
    few = {"identity", "sort", "union", "shuffled set"}  # whose sequences are as long as they come
    assert all(tokens[front] == pytest.approx(tokens["set"], rel=0.1) for front in fronts.keys() - few)
    assert fronts["text"].transfer.embeddings == fronts["text"].transfer.positions == "keep"


def test_learnt_small_is_of_the_published_start_and_brought_to_the_wider_ones_size():
    factors, recipes = EXPERIMENT.factors("laptop"), EXPERIMENT.recipes("laptop")
    cells = factors[factors["carried"] == "learnt small"].index
    assert len(cells) and set(factors.loc[cells, "swept"]) == set(RUNGS[2:])
    for cell in cells:
        recipe = recipes[cell]
        assert recipe.body_stage_one.init == 0.02 and recipe.body.init == pytest.approx(0.06)
        assert recipe.transfer.attention == recipe.transfer.mlp == "rescale"


def test_on_a_rung_only_what_stands_in_front_differs():
    factors, recipes = EXPERIMENT.factors("laptop"), EXPERIMENT.recipes("laptop")
    assert list(factors["swept"].unique()) == list(RUNGS)
    for _, rung in factors.groupby(["task", "swept", "amount", "text"]):
        assert len({(str(recipes[cell].stage_two), str(recipes[cell].body)) for cell in rung.index}) == 1
        assert (rung["front"] == "random init").sum() == 1
        assert {"full", "permuted"} <= set(rung["carried"])


def test_less_of_the_text_is_the_recipe_with_a_schedule_that_ends_there():
    factors, recipes = EXPERIMENT.factors("laptop"), EXPERIMENT.recipes("laptop")
    shorter = factors[factors["text"] < 1]
    assert set(shorter["task"]) == {"code", "language", "math"} and {"full", "permuted"} < set(shorter["carried"])
    for cell, share in shorter["text"].items():
        whole, less = recipes[str(cell).rpartition(" / ")[0]], recipes[str(cell)]
        assert less.stage_one == whole.stage_one and less.transfer == whole.transfer
        assert less.stage_two == whole.stage_two.at(steps=round(share * whole.stage_two.stage.steps))
