"""Along an axis one thing changes, and what has to go with it."""

from dataclasses import replace

import pytest

from structure_first.experiments import axes, published

BASE = published.EXPERIMENT.recipes("laptop")
AWAY = [("width", 64), ("width", 256), ("context", 128), ("context", 512), ("updates", 6_000)]


def recipes(experiment, axis: str, amount: int) -> list:
    """Of random init, *set* and its numbers in random order."""
    cells = experiment.recipes("laptop")
    return [cells[f"code / {front} / {axis} {amount}"] for front in ("random init", "set", "set / permuted")]


def test_the_points_are_a_half_and_twice_and_four_times():
    assert len(axes.EXPERIMENT.recipes("laptop")) == 3 * len(AWAY)
    assert all(recipe for point in AWAY for recipe in recipes(axes.EXPERIMENT, *point))
    assert not axes.EXPERIMENT.recipes("paper"), "which is a point itself"


@pytest.mark.parametrize("point", AWAY, ids=str)
@pytest.mark.parametrize("experiment", [axes.EXPERIMENT, axes.TUNED], ids=lambda each: each.name)
def test_what_is_compared_reads_the_same_text_at_the_same_size(experiment, point):
    alone, learnt, shuffled = recipes(experiment, *point)
    assert alone == replace(learnt, stage_one=None, transfer=None)
    assert learnt == replace(shuffled, transfer=learnt.transfer) and learnt.transfer != shuffled.transfer


@pytest.mark.parametrize(("axis", "amount"), AWAY)
def test_the_rest_is_as_published(axis, amount):
    there, here = recipes(axes.EXPERIMENT, axis, amount)[1], BASE["code / set"]
    stage, base = there.stage_two.stage, here.stage_two.stage
    body = replace(here.body, width=there.body.width, heads=there.body.heads)
    assert there == replace(here, stage_two=there.stage_two, body=body), "stage one, too"
    if axis == "width":
        assert there.body.width // there.body.heads == here.body.width // here.body.heads
        assert there.body.width == amount and stage.lr * amount == pytest.approx(base.lr * here.body.width)
        assert stage == replace(base, lr=stage.lr) and there.stage_two.settings == here.stage_two.settings
    elif axis == "context":
        assert there.stage_two.settings["context"] == amount and stage == replace(base, batch=stage.batch)
        assert stage.batch * amount == base.batch * here.stage_two.settings["context"], "as many tokens an update"
    else:
        assert stage == replace(base, steps=amount, evaluate_every=stage.evaluate_every)
        assert stage.steps / stage.evaluate_every == base.steps / base.evaluate_every
        read = stage.sequences * (there.stage_two.settings["context"] + 1)
        assert 0.95 * there.stage_two.settings["tokens"] > read, "none of it twice, with a twentieth held out"


@pytest.mark.parametrize(("axis", "amount"), AWAY)
def test_the_better_start_is_the_ladders_last_step_for_the_width(axis, amount):
    there, before = (recipes(each, axis, amount)[1] for each in (axes.TUNED, axes.EXPERIMENT))
    step, first = BASE["code / set / wider start at 0.002"], BASE["code / set"]
    narrower = first.body.width / there.body.width
    stage, of_step = there.stage_two.stage, step.stage_two.stage
    assert there.body.init == pytest.approx(step.body.init * narrower**0.5)
    assert (stage.lr, stage.warmup) == (pytest.approx(of_step.lr * narrower), of_step.warmup)
    as_before = there.stage_two.at(lr=before.stage_two.stage.lr, warmup=0)
    assert before == replace(there, body=replace(there.body, init=first.body.init), stage_two=as_before)
