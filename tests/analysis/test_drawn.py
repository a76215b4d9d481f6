"""What how the sums are drawn does to them, and to what a front is worth."""

import pandas as pd
import pytest

from structure_first.analysis import drawn
from structure_first.analysis.stored import with_factors
from structure_first.book.figures import combined as draw
from structure_first.experiments import skills

ENDS = {  # of three seeds, by start; drawn as published each is 0.2 higher
    "eca / mean rows": (0.6, 0.6, 0.55),
    "shuffled eca / mean rows": (0.3, 0.4, 0.45),
    "random init": (0.4, 0.5, 0.45),
    "set / attention": (0.5, 0.7, 0.55),
    f"{skills.THEIR_STACK} / mean rows": (0.3, 0.35, 0.4),
}


@pytest.fixture
def found(rows_of):
    rows = {
        (f"{task} / {how} / {start}", seed): {40: value + 0.2 * (how == "as published")}
        for task in skills.ARITHMETIC
        for how in ("as published", "zero-padded")
        for start, values in ENDS.items()
        for seed, value in enumerate(values)
    }
    return drawn.drawn(with_factors(rows_of(rows), skills.DRAWN))


def test_a_front_is_measured_against_sums_that_are_drawn_alike(found):
    assert len(found) == 2 * 2 * 5 * 3
    assert list(dict.fromkeys(found["drawn"])) == ["zero-padded", "as published"]
    attention = found[(found["start"] == "Set's attention") & (found["task"] == "addition")]
    for _, seeds in attention.groupby("drawn"):
        assert seeds["gain"].round(6).to_list() == [0.1, 0.2, 0.1]


def test_each_way_to_draw_is_told_with_the_papers_number(found):
    worth = drawn.worth(found)
    assert worth.loc[("addition", "Set's attention")].to_list() == ["+10 (+10 to +20)", "+10 (+10 to +20)", 3]
    assert "random init" not in worth.index.get_level_values("start")
    table = drawn.medians(found)
    assert table.loc[("addition", "random init")].to_list() == ["45.0%", "65.0%", "59.1%"]
    assert table.loc[("reversed_addition", "all of Stack, theirs")].to_list() == ["35.0%", "55.0%", "34.9%"]
    assert table.loc[("addition", "all of Stack, theirs"), "the paper, at its size"] == ""


def test_what_the_order_of_the_tokens_is_worth_is_told_seed_by_seed(found):
    first, second = drawn.order(found).splitlines()
    assert first == (
        "- **addition**: after all of rule 110 80%, shuffled 60%, from random init 65%. "
        "The order is worth +20 (+10 to +30) points."
    )
    assert second.startswith("- **reversed addition**: ")


@pytest.fixture
def sized(rows_of):
    """At two sizes, of which the larger has two starts of one task."""
    small = ["random init", "eca / mean rows", "set / attention"]
    ran = {"laptop": (skills.ARITHMETIC, small), "paper": (["addition"], small[:2])}
    for scale, (tasks, starts) in ran.items():
        cells = [f"{task} / as published / {start}" for task in tasks for start in starts]
        higher = 0.1 * (scale == "paper")
        values = {
            (cell, seed): {40: ENDS[cell.split(" / ", 2)[2]][seed] + higher} for cell in cells for seed in range(3)
        }
        ended = with_factors(rows_of(values).assign(scale=scale), skills.DRAWN)
        learnt = ended[ended["front"] != "random init"].assign(metric="mastery", step=0, value=0.95)
        ran[scale] = pd.concat([ended, learnt], ignore_index=True)
    return drawn.by_size(ran.values())


def test_sizes_are_compared_on_what_ran_at_the_largest(sized):
    models = sized.groupby(["task", "size", "start"], sort=False).size()
    assert models.to_dict() == {
        ("addition", size, start): 3 for size in ("3 digits", "5 digits") for start in ("random init", drawn.ORDERED)
    }
    assert sized.groupby("start")["learnt"].first().dropna().to_dict() == {drawn.ORDERED: 0.95}, (
        "random init had no stage one"
    )
    assert drawn.at_each_size(sized).T.to_dict("list") == {
        ("addition", "3 digits", "random init"): ["45%", "", "", "+0", 3],
        ("addition", "3 digits", drawn.ORDERED): ["60%", "95%", "", "+10 (+10 to +20)", 3],
        ("addition", "5 digits", "random init"): ["55%", "", "59%", "+0", 3],
        ("addition", "5 digits", drawn.ORDERED): ["70%", "95%", "70%", "+10 (+10 to +20)", 3],
    }


def test_rows_are_called_by_what_their_models_start_from(sized, rows_of):
    cells = ["addition / as published / eca / mean rows", "addition / as published / random init", "stage one: eca()"]
    rows = rows_of({(cell, 0): 0.5 for cell in [*cells, *(f"reversed_{cell}" for cell in cells[:2])]})
    other = sized.assign(task="reversed_addition", cell="reversed_" + sized["cell"])
    found = drawn.by_start(rows, pd.concat([sized, other]), "addition")
    assert list(found["cell"]) == [drawn.ORDERED, "random init"], "of one diagnostic alone"


def test_the_papers_numbers_stand_beside_its_size(sized):
    fig = draw.draws(sized, "addition", "size")
    hollow = [trace for trace in fig.data if trace.marker.symbol == "diamond-open"]
    assert [(trace.xaxis, list(trace.y)) for trace in hollow] == [("x2", [0.591, 0.696])]


def test_the_papers_numbers_stand_where_it_drew_so(found):
    fig = draw.draws(found, "addition")
    hollow = [trace for trace in fig.data if "diamond" in str(trace.marker.symbol)]
    assert len(hollow) == 1 and hollow[0].xaxis == "x2", "beside what is drawn as published"
    assert dict(zip(hollow[0].x, hollow[0].y, strict=True)) == {0: 0.591, 1: 0.811, 2: 0.696}
    dots = sum(len(trace.x) for trace in fig.data if trace.mode == "markers") - len(hollow[0].x)
    assert dots == len(found) / 2
