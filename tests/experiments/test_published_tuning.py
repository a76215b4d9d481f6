"""What the published recipe's baseline wants is sought on random init alone, on each text with the same choices."""

from dataclasses import replace

import pytest

from structure_first.experiments import published
from structure_first.experiments.published_tuning import EXPERIMENT

LADDER = published.EXPERIMENT.recipes("laptop")
CENTRES = {"laptop": "weights 0.06 at 0.002", "gpu": "weights 0.03 at 0.0005"}


@pytest.mark.parametrize("corpus", ["code", "language", "math"])
def test_every_choice_is_the_last_steps_baseline_but_for_what_is_tried(corpus):
    factors, recipes = EXPERIMENT.factors("laptop"), EXPERIMENT.recipes("laptop")
    last = LADDER[f"{corpus} / random init / wider start at 0.002"]
    own = {cell: recipes[cell] for cell in factors[factors["task"] == corpus].index}
    assert recipes[f"{corpus} / random init / weights 0.06 at 0.002"] == last
    tried = set()
    for cell, recipe in own.items():
        stage, before = recipe.stage_two.stage, last.stage_two.stage
        assert recipe.stage_one is None and factors.loc[cell, "amount"] == stage.lr
        others = (stage.warmup, stage.weight_decay, recipe.stage_two.dropout)
        tried.add((round(recipe.body.init, 3), stage.lr, *others))
        back = recipe.stage_two.at(lr=before.lr, warmup=before.warmup, weight_decay=before.weight_decay)
        back = replace(back, dropout=last.stage_two.dropout)
        assert replace(recipe, stage_two=back, body=replace(recipe.body, init=last.body.init)) == last
    decay = last.stage_two.stage.weight_decay
    grid = {(width, rate, 200, decay, 0.1) for width in (0.04, 0.06, 0.09) for rate in (1e-3, 2e-3, 4e-3)}
    assert tried == grid | {(0.06, 2e-3, 400, decay, 0.1), (0.06, 2e-3, 200, 0.1, 0.1), (0.06, 2e-3, 200, decay, 0.0)}


def test_a_wider_model_is_offered_narrower_weights_and_smaller_rates():
    narrow, wide = (EXPERIMENT.recipes(scale)["code / random init / " + name] for scale, name in CENTRES.items())
    factor = wide.body.width / narrow.body.width
    assert wide.body.init == pytest.approx(narrow.body.init / factor**0.5)
    assert wide.stage_two.stage.lr == pytest.approx(narrow.stage_two.stage.lr / factor)
