"""Chapter 03's figures and table, on a real run at smoke scale."""

import numpy as np
import pandas as pd
import pytest
import torch

from structure_first.analysis import attention
from structure_first.book import figures, haystack_figures
from structure_first.errors import UserError
from structure_first.evidence.statistics import final
from structure_first.experiments import haystack
from structure_first.runs.runner import run

CELLS = ["random init", "identity attention"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("live")
    return run(haystack.EXPERIMENT, "smoke", (100, 101), out, workers=1, cells=CELLS), out


def test_without_results_a_chapter_says_how_to_get_them(ran):
    assert haystack_figures.largest_scale(ran[0]) == "smoke"
    with pytest.raises(UserError, match="this chapter has no stored results; restore book/results or make them"):
        haystack_figures.largest_scale(ran[0][:0])


def test_every_seed_is_drawn_beside_the_guesser(ran):
    rows, _ = ran
    task = haystack.EXPERIMENT.recipes("smoke")["random init"].stage_two.make()
    fig = haystack_figures.curves(rows, CELLS, task)
    assert len(fig.data) == 4
    assert fig.layout.shapes[0].y0 == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_the_table_has_a_line_a_cell_and_says_how_well_stage_one_was_learnt(ran):
    rows, _ = ran
    table = haystack_figures.table(rows)
    assert set(table.index) == set(CELLS) and (table["seeds"] == 2).all()
    assert table.loc["random init", "stage one learnt"] == ""
    learnt = final(rows, "mastery")["identity attention"].median()
    assert table.loc["identity attention", "stage one learnt"] == f"{learnt:.1%}"
    assert (table["median step of the jump"] == "∞").all() and table["jumped"].str.startswith("0% [0%").all()


@pytest.fixture(scope="module")
def jobs(ran):
    rows, out = ran
    return haystack_figures.jumped(haystack.EXPERIMENT, "smoke", rows, out)


@pytest.fixture(scope="module")
def looked(jobs):
    return haystack_figures.looked(jobs, count=20)


@pytest.fixture(scope="module")
def looked_at_two(ran):
    """Both seeds, as if both had jumped."""
    rows, out = ran
    rows = rows.assign(value=rows["value"].where(rows["metric"] != "accuracy", 1.0))
    return haystack_figures.looked(haystack_figures.jumped(haystack.EXPERIMENT, "smoke", rows, out), count=20)


def test_the_seeds_that_jumped_come_first_to_last_and_never_one_without_a_stage_one(ran):
    rows, out = ran
    jumps = rows.copy()
    of_cell = (jumps["metric"] == "accuracy") & (jumps["stage"] == 2) & (jumps["cell"] == "identity attention")
    for seed, step in ((100, 40), (101, 20)):
        jumps.loc[of_cell & (jumps["seed"] == seed) & (jumps["step"] == step), "value"] = 0.95
    jumps.loc[(jumps["metric"] == "accuracy") & (jumps["cell"] == "random init"), "value"] = 1.0
    found = haystack_figures.jumped(haystack.EXPERIMENT, "smoke", jumps, out)
    assert [haystack_figures.label(job) for job in found] == [f"identity attention, seed {seed}" for seed in (101, 100)]
    (best,) = haystack_figures.jumped(haystack.EXPERIMENT, "smoke", rows, out)
    assert best.name == "identity attention" and best.seeds[0] == final(rows)["identity attention"].idxmax()


def test_each_state_of_a_model_is_its_own(jobs):
    states = haystack_figures.states(jobs[0])
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
    table = haystack_figures.carriers(looked_at_two._replace(ablations=ablations))
    assert table["head"].to_dict() == {(model, f"layer {layer}"): head for (model, layer), head in chosen.items()}
    assert (table["lost without it"] == "80%").all()
    scores = looked_at_two.scores[looked_at_two.scores["kind"] == "copying"].set_index(
        ["model", "state", "layer", "head"]
    )["score"]
    assert table.loc[(second, "layer 0"), "copied after stage one"] == f"{scores[second, 'after stage one', 0, 3]:.2f}"


def test_the_heads_are_drawn_at_every_evaluation_of_a_second_training(ran, jobs):
    rows, out = ran
    kept = sorted((out / "haystack").rglob("*"))
    fig = haystack_figures.training_maps(jobs[0], rows, frames=4)
    assert sorted((out / "haystack").rglob("*")) == kept
    assert len(fig.data) == 8 and np.shape(fig.data[0].z) == (7, 7)
    steps = fig.layout.sliders[0].steps
    assert [step.label for step in steps] == ["0", "10", "20", "30", "40"]
    new, title = steps[-1].args
    assert (np.array(new["z"])[3] == np.array(fig.data[3].z)).all()
    assert title["title.text"] == fig.layout.title.text
    again = rows[(rows["cell"] == jobs[0].name) & (rows["seed"] == jobs[0].seeds[0]) & (rows["metric"] == "accuracy")]
    shown = [step.args[1]["title.text"] for step in steps]
    expected = again[again["stage"] == 2].set_index("step")["value"]
    assert [f"step {step}: {expected[step]:.0%} right" in shown[step // 10] for step in (0, 10, 20, 30, 40)] == [
        True
    ] * 5


def test_rings_lie_where_recall_has_to_look():
    tokens, even = [130, 17, 128, 99, 158], np.full((4, 5, 5), 20)  # C 17 A 99 A?
    fig = haystack_figures.head_maps(even.tolist(), tokens, layers=2)
    rings = {}
    for ring in fig.layout.shapes:
        rings.setdefault(ring.xref, []).append(((ring.y0 + ring.y1) / 2, (ring.x0 + ring.x1) / 2))
    assert list(rings.values()) == [[(1, 0), (3, 2)]] * 2 + [[(4, 3)]] * 2
    assert fig.layout.xaxis.ticktext == ("C", "17", "A", "<b>▶99</b>", "A?")
    assert haystack_figures.written(128 + 29) == "d"


def two_models(looked):
    """The same measurements under a second name."""
    return haystack_figures.Looked(*(pd.concat([part, part.assign(model="another")]) for part in looked))


def test_the_menu_of_models_changes_all_panels(looked):
    both = two_models(looked)
    scores = both.scores.assign(score=both.scores["score"].where(both.scores["model"] != "another", 0.5))
    fig = haystack_figures.kinds(both._replace(scores=scores))
    choices = fig.layout.updatemenus[0].buttons
    assert [choice.label for choice in choices] == [looked.scores["model"].iloc[0], "another"]
    assert "query → value" in fig.data[2].x and "query → value" not in fig.data[0].x
    assert (np.array(choices[1].args[0]["z"][2]) == 0.5).all() and choices[1].args[0]["x"][0] == list(fig.data[0].x)


def test_losses_fall_and_origins_are_of_whole_layers(looked):
    both = two_models(looked)
    losses = haystack_figures.losses(both)
    assert len(losses.data) == 4 and sum(line.showlegend for line in losses.data) == 2
    assert all((np.diff(line.y) <= 0).all() and len(line.y) == 4 for line in losses.data)
    origins = haystack_figures.origins(both)
    assert len(origins.data) == 12 and all(list(dots.x) == list(attention.PARTS) for dots in origins.data)
    shown = [dots.name for dots in origins.data if dots.showlegend]
    assert sorted(shown) == sorted(["fresh weights", "permuted weights", "another", looked.scores["model"].iloc[0]])
    patches = both.patches.assign(accuracy=both.patches["accuracy"].where(both.patches["head"] != attention.ALL, 0.25))
    said = haystack_figures.origins_said(both._replace(patches=patches))
    parts = "where it looks 25% (25%), what it writes 25% (25%), both 25% (25%)"
    assert said == f"Median accuracy of 2 models (with permuted weights): layer 0: {parts}; layer 1: {parts}."


def test_a_cell_whose_seeds_all_stopped_early_was_still_allowed_as_long_as_the_others():
    lines = [("random init", 2, 4000), ("dyck", 2, 2500), ("longer training", 2, 8000), ("stage one: dyck", 1, 9000)]
    rows = pd.DataFrame(lines, columns=["cell", "stage", "step"])
    found = haystack_figures.horizons(rows)
    assert found.to_dict() == {"random init": 4000, "dyck": 4000, "longer training": 8000}
    times = pd.Series({("dyck", 0): 2500.0, ("longer training", 0): 6000.0, ("random init", 0): float("inf")})
    times.index.names = ["cell", "seed"]
    lines = {trace.name: (trace.x[-1], trace.y[-1]) for trace in figures.share_jumped(times, found, 0.9).data}
    assert lines == {
        "dyck (1 seed)": (4000, 1.0),
        "longer training (1 seed)": (8000, 1.0),
        "random init (1 seed)": (4000, 0.0),
    }
