"""Chapter 03's table and what it finds inside the models, on a real run at smoke scale."""

import numpy as np
import pandas as pd
import pytest
import torch

from structure_first.analysis import attention
from structure_first.analysis import haystack as analysis
from structure_first.analysis.stored import with_factors
from structure_first.data.registry import source
from structure_first.evidence.statistics import final
from structure_first.experiments import haystack


def test_the_table_has_a_line_a_cell_and_says_how_well_stage_one_was_learnt(ran):
    rows, _ = ran
    table = analysis.table(rows)
    assert set(table.index) == {"random init", "identity attention"} and (table["seeds"] == 2).all()
    assert table.loc["random init", "stage one learnt"] == ""
    learnt = final(rows, "mastery")["identity attention"].median()
    assert table.loc["identity attention", "stage one learnt"] == f"{learnt:.1%}"
    assert (table["median step of the jump"] == "∞").all() and table["jumped"].str.startswith("0% [0%").all()


def test_how_many_jumped_is_said_most_first(ran):
    rows, _ = ran
    assert analysis.jumped_said(rows) == "Seeds that jumped: *identity attention* 0 of 2, *random init* 0 of 2."
    one = (rows["cell"] == "random init") & (rows["seed"] == 101) & (rows["metric"] == "accuracy")
    rows = rows.assign(value=rows["value"].mask(one, 0.95))
    assert analysis.jumped_said(rows) == "Seeds that jumped: *random init* 1 of 2, *identity attention* 0 of 2."
    assert analysis.jumped_said(rows, ["identity attention", "none"]).endswith(": *identity attention* 0 of 2.")


@pytest.fixture(scope="module")
def looked_at_two(ran):
    """Both seeds, as if both had jumped."""
    rows, out = ran
    rows = rows.assign(value=rows["value"].where(rows["metric"] != "accuracy", 1.0))
    return analysis.study_heads(analysis.jumped(haystack.EXPERIMENT, "smoke", rows, out), count=20)


def test_the_seeds_that_jumped_come_first_to_last_and_never_one_without_a_stage_one(ran):
    rows, out = ran
    jumps = rows.copy()
    of_cell = (jumps["metric"] == "accuracy") & (jumps["stage"] == 2) & (jumps["cell"] == "identity attention")
    for seed, step in ((100, 40), (101, 20)):
        jumps.loc[of_cell & (jumps["seed"] == seed) & (jumps["step"] == step), "value"] = 0.95
    jumps.loc[(jumps["metric"] == "accuracy") & (jumps["cell"] == "random init"), "value"] = 1.0
    found = analysis.jumped(haystack.EXPERIMENT, "smoke", jumps, out)
    assert [analysis.label(job) for job in found] == [f"identity attention, seed {seed}" for seed in (101, 100)]
    (best,) = analysis.jumped(haystack.EXPERIMENT, "smoke", rows, out)
    assert best.name == "identity attention" and best.seeds[0] == final(rows)["identity attention"].idxmax()


def test_each_state_of_a_model_is_its_own(jobs):
    states = analysis.states(jobs[0])
    (before, first), (found, task), (left, _) = states.values()
    assert (first.name, task.name) == ("identity", "haystack")
    assert before.shape.vocab == first.vocab and found.shape.vocab == left.shape.vocab == task.vocab
    kept, fresh = "blocks.1.attention.query.weight", "blocks.1.mlp.up.weight"
    assert torch.equal(before.get_parameter(kept), found.get_parameter(kept))
    assert not torch.equal(before.get_parameter(fresh), found.get_parameter(fresh))
    assert not torch.equal(found.get_parameter(kept), left.get_parameter(kept))


def test_every_head_is_scored_ablated_and_patched(looked):
    heads = looked.ablations[["layer", "head"]].drop_duplicates()
    assert len(heads) == 8
    assert set(looked.scores["state"]) == {"after stage one", "as found", "as left"}
    assert set(looked.patches["donor"]) == {"as found", "permuted", "fresh"} and set(looked.patches["head"]) == {
        -1,
        0,
        1,
        2,
        3,
    }


def test_the_carrier_is_the_head_without_which_most_is_lost(looked_at_two):
    assert len(looked_at_two.ablations) == len(looked_at_two.ablations.index.unique()) == 2 * 2 * 4
    ablations = looked_at_two.ablations.assign(lost=0.1)
    first, second = ablations["model"].unique()
    chosen = {(first, 0): 2, (first, 1): 0, (second, 0): 3, (second, 1): 1}
    for (model, layer), head in chosen.items():
        this = (ablations["model"] == model) & (ablations["layer"] == layer) & (ablations["head"] == head)
        ablations.loc[this, "lost"] = 0.8
    table = analysis.carriers(looked_at_two._replace(ablations=ablations))
    assert table["head"].to_dict() == {(model, f"layer {layer}"): head for (model, layer), head in chosen.items()}
    assert (table["lost without it"] == "80%").all()
    scores = looked_at_two.scores[looked_at_two.scores["kind"] == "copying"].set_index(
        ["model", "state", "layer", "head"]
    )["score"]
    assert table.loc[(second, "layer 0"), "copied after stage one"] == f"{scores[second, 'after stage one', 0, 3]:.2f}"


def test_a_second_training_is_the_first_and_keeps_nothing(ran, jobs):
    rows, out = ran
    kept = sorted((out / "haystack").rglob("*"))
    watched = analysis.watched(jobs[0], rows, frames=4)
    assert sorted((out / "haystack").rglob("*")) == kept
    assert watched.name == analysis.label(jobs[0]) and watched.layers == 2 and len(watched.tokens) == 7
    assert list(watched.maps) == [0, 10, 20, 30, 40] and np.shape(watched.maps[0]) == (8, 7, 7)
    again = rows[(rows["cell"] == jobs[0].name) & (rows["seed"] == jobs[0].seeds[0]) & (rows["metric"] == "accuracy")]
    assert watched.right == again[again["stage"] == 2].set_index("step")["value"].to_dict()


def test_what_heads_do_and_are_worth_is_told_in_words(two_models):
    scores = two_models.scores
    looks = scores["kind"].isin([analysis.LOOKS[0], analysis.LOOKS[2]])
    scores = scores.assign(score=scores["score"].where(~looks, 0.1))
    left = looks & scores["state"].eq("as left") & scores["head"].eq(3)
    said = analysis.kinds_said(two_models._replace(scores=scores.assign(score=scores["score"].where(~left, 0.9))))
    assert said.startswith("In the median of 2 models") and said.count("90%") == 2 and said.count("10%") == 2
    elsewhere = looks & scores["state"].eq("as found") & scores["head"].eq(0)
    other = scores.assign(score=scores["score"].where(~left, 0.9).where(~elsewhere, 0.8))
    assert analysis.kinds_said(two_models._replace(scores=other)) == said, "another head did, as found: not this one"
    lost = two_models.ablations["head"].map({0: 0.1, 1: 0.7, 2: 0.0, 3: 0.2})
    said = analysis.losses_said(two_models._replace(ablations=two_models.ablations.assign(lost=lost)))
    assert said.endswith("in the median: in layer 0 70% (the next: 20%), in layer 1 70% (the next: 20%).")


def test_a_guess_among_the_values_shown():
    assert analysis.guess(source("haystack", pairs=3)) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_whole_layers_put_back_are_told_in_words(two_models):
    patches = two_models.patches
    patches = patches.assign(accuracy=patches["accuracy"].where(patches["head"] != attention.ALL, 0.25))
    said = analysis.origins_said(two_models._replace(patches=patches))
    parts = "where it looks 25% (25%), what it writes 25% (25%), both 25% (25%)"
    assert f"accuracy of 2 models is (with permuted weights): layer 0: {parts}; layer 1: {parts}." in said
    assert said.endswith("something of it was there before stage two: nothing.")
    whole = (patches["head"] == attention.ALL) & (patches["layer"] == 1) & (patches["part"] == "both")
    patches.loc[whole & (patches["donor"] == "as found"), "accuracy"] = 0.75
    assert "there before stage two: layer 1, both." in analysis.origins_said(two_models._replace(patches=patches))


def test_which_layer_came_first_to_look_is_told():
    tokens, ties, asks = [130, 17, 131, 18, 161], [(1, 0), (3, 2)], (4, 3)

    def maps(tie: int, match: int) -> list:
        heads = [[[0] * 5 for _ in range(5)] for _ in range(4)]  # two a layer, of which the second looks
        for query, key in ties:
            heads[1][query][key] = tie
        heads[3][asks[0]][asks[1]] = match
        return heads

    def said(*steps: tuple[int, int]) -> str:
        frames = {10 * place: maps(*each) for place, each in enumerate(steps)}
        return analysis.turns_said(analysis.Watched("dyck, seed 1", tokens, 2, frames, {}))

    first = said((0, 0), (60, 0), (90, 80))
    assert first.endswith(
        "a head of the first layer from step 10 on, of the last from step 20 on: the first layer is ahead."
    )
    assert said((0, 0), (50, 50)).endswith("of the last from step 10 on: neither is ahead.")
    assert said((0, 60), (49, 60)).endswith("layer never, of the last from step 0 on: the last layer is ahead.")


def test_a_cell_whose_seeds_all_stopped_early_was_still_allowed_as_long_as_the_others():
    lines = [("random init", 2, 4000), ("dyck", 2, 2500), ("longer training", 2, 8000), ("stage one: dyck", 1, 9000)]
    rows = pd.DataFrame(lines, columns=["cell", "stage", "step"])
    assert analysis.horizons(rows).to_dict() == {"random init": 4000, "dyck": 4000, "longer training": 8000}
    without = rows[rows["cell"] != "random init"]
    assert analysis.horizons(without).to_dict() == {"dyck": 2500, "longer training": 8000}


@pytest.mark.parametrize("cells", [analysis.CLAIM, analysis.SIZE, analysis.ROWS, analysis.RACE])
def test_what_is_shown_together_are_cells(cells):
    assert set(cells) <= set(haystack.EXPERIMENT.recipes("laptop"))


def test_beginnings_that_make_no_seed_jump_are_counted_and_left_out(rows_of):
    ends = {
        "weights 0.02 / embeddings 0.02": 0.2,
        "weights 0.25 / embeddings 1 / tied": 0.95,
        "weights 0.5 / embeddings 1": 0.1,
    }
    rows = rows_of({(cell, 50): {0: 0.1, 10: end} for cell, end in ends.items()})
    tuned = analysis.begun(with_factors(rows, haystack.TUNING))
    assert set(analysis.that_jump(tuned)["cell"]) == {"random init", "weights 0.25 / embeddings 1 / tied"}
    assert analysis.that_jump_said(tuned).startswith("**Of 3 beginnings 1 make a seed jump")


def test_a_search_stands_beside_its_base_and_random_init(rows_of):
    evidence = rows_of({(cell, 100): {10: 0.9} for cell in ("dyck", "random init", "set")})
    cells = ("k 8", "p 0.3", "less mastery", "length 64")
    searched = with_factors(rows_of({(cell, 0): {10: 0.95} for cell in cells}), haystack.SEARCH)
    beside = analysis.beside_base(searched, evidence)
    words = ["8 types", "shallower, p 0.3", "stage one cut short", "length 64"]
    assert list(beside["cell"].unique()) == [*words, "base", "random init"]
    jumped = {(word, 0): True for word in words} | {("base", 100): True, ("random init", 100): True}
    assert analysis.has_jumped(beside).to_dict() == jumped
