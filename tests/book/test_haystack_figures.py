"""Chapter 03's figures, on a real run at smoke scale."""

import numpy as np
import pytest

from structure_first.analysis import attention
from structure_first.analysis import haystack as analysis
from structure_first.book.figures import haystack as draw
from structure_first.book.figures.tokens import in_haystack
from structure_first.experiments import haystack


def test_every_seed_is_drawn_beside_the_guesser(ran):
    rows, _ = ran
    task = haystack.EXPERIMENT.recipes("smoke")["random init"].stage_two.make()
    fig = draw.curves(rows, ["random init", "identity attention"], task)
    assert len(fig.data) == 4
    assert fig.layout.shapes[0].y0 == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_the_heads_are_drawn_at_every_evaluation():
    maps = {step: np.full((8, 3, 3), step).tolist() for step in (0, 10, 20)}
    fig = draw.training_maps(analysis.Watched("dyck, seed 1", [130, 17, 160], 2, maps, {0: 0.1, 10: 0.5, 20: 0.97}))
    assert len(fig.data) == 8 and (np.array(fig.data[3].z) == 20).all()
    steps = fig.layout.sliders[0].steps
    assert [step.label for step in steps] == ["0", "10", "20"] and fig.layout.sliders[0].active == 2
    new, title = steps[1].args
    assert (np.array(new["z"]) == 10).all() and title["title.text"] == "dyck, seed 1, step 10: 50% right"
    assert fig.layout.title.text == "dyck, seed 1, step 20: 97% right"


def test_rings_lie_where_recall_has_to_look():
    tokens, even = [130, 17, 128, 99, 158], np.full((4, 5, 5), 20)  # C 17 A 99 A?
    fig = draw.head_maps(even.tolist(), tokens, layers=2)
    rings = {}
    for ring in fig.layout.shapes:
        rings.setdefault(ring.xref, []).append(((ring.y0 + ring.y1) / 2, (ring.x0 + ring.x1) / 2))
    assert list(rings.values()) == [[(1, 0), (3, 2)]] * 2 + [[(4, 3)]] * 2
    assert fig.layout.xaxis.ticktext == ("C", "17", "A", "<b>▶99</b>", "A?")
    assert in_haystack(128 + 29) == "d"


def test_the_menu_of_models_changes_all_panels(looked, two_models):
    scores = two_models.scores
    scores = scores.assign(score=scores["score"].where(scores["model"] != "another", 0.5))
    fig = draw.kinds(two_models._replace(scores=scores))
    choices = fig.layout.updatemenus[0].buttons
    assert [choice.label for choice in choices] == [looked.scores["model"].iloc[0], "another"]
    assert "query → value" in fig.data[2].x and "query → value" not in fig.data[0].x
    assert (np.array(choices[1].args[0]["z"][2]) == 0.5).all() and choices[1].args[0]["x"][0] == list(fig.data[0].x)


def test_losses_fall_and_origins_are_of_whole_layers(looked, two_models):
    losses = draw.losses(two_models)
    assert len(losses.data) == 4 and sum(line.showlegend for line in losses.data) == 2
    assert all((np.diff(line.y) <= 0).all() and len(line.y) == 4 for line in losses.data)
    origins = draw.origins(two_models)
    assert len(origins.data) == 12 and all(list(dots.x) == list(attention.PARTS) for dots in origins.data)
    shown = [dots.name for dots in origins.data if dots.showlegend]
    assert sorted(shown) == sorted(["fresh weights", "permuted weights", "another", looked.scores["model"].iloc[0]])
