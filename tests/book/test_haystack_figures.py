"""Chapter 03's figures and table, on a real run at smoke scale."""

import math

import pytest

from structure_first.book import haystack_figures
from structure_first.evidence import attention
from structure_first.evidence.statistics import final
from structure_first.experiments import haystack
from structure_first.experiments.runner import run

CELLS = ["random init", "identity attention"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("live")
    return run(haystack.EXPERIMENT, "smoke", (100, 101), out, workers=1, cells=CELLS), out


def test_every_seed_is_drawn_beside_the_guesser(ran):
    rows, _ = ran
    task = haystack.EXPERIMENT.cells("smoke")["random init"].second.make()
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


def test_a_model_is_shown_before_and_after_its_training(ran):
    rows, out = ran
    before, after, cell = haystack_figures.before_and_after(haystack.EXPERIMENT, "smoke", rows, out)
    assert cell == "identity attention" and before.seeds == after.seeds
    assert not math.isclose(before.embedding.std().item(), after.embedding.std().item(), rel_tol=1e-3)
    fig = haystack_figures.query_attention(after, pairs=3)
    assert fig.data[0].z.shape == (2 * 4, 7)
    assert sum("▶" in name for name in fig.layout.xaxis.ticktext) == 1
    bars = haystack_figures.looks(attention.looks(before, 3), attention.looks(after, 3))
    assert len(bars.data) == 6 and all(len(bar.y) == 8 for bar in bars.data)
