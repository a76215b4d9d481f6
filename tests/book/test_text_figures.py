"""Chapters 05 and 06: what the figures draw, and that the solutions that train run."""

import numpy as np
import pandas as pd
import pytest

from structure_first.analysis import text as analysis
from structure_first.analysis.stored import with_factors
from structure_first.book.figures import text as draw
from structure_first.experiments import additive, substitutive

CHAPTER = "05_a_pinch_of_structure"


@pytest.fixture
def last(pinches) -> pd.DataFrame:
    return analysis.ends(analysis.curves(pinches()))


@pytest.fixture
def models(shares) -> pd.DataFrame:
    return analysis.by_share(shares, substitutive.FORMER)


def test_the_dose_is_a_line_over_the_shares(last):
    fig = draw.dose(last)
    lines = {trace.name: trace for trace in fig.data if trace.mode == "lines+markers"}
    assert list(lines["identity"].x) == [0.01] and lines["identity"].y[0] == pytest.approx(0.1)
    assert lines["identity, mlp alone"].y[0] == pytest.approx(0.3) and lines["text"].y[0] == pytest.approx(0.2)


def test_a_seed_gone_astray_leaves_room_for_the_medians(pinches):
    rows = pinches(seeds=9)
    astray = (rows["cell"] == "code / text 1 %") & (rows["step"] == 200) & (rows["seed"] == 8)
    rows.loc[astray & (rows["metric"] == "loss"), "value"] = 9.0
    low, high = draw.dose(analysis.ends(analysis.curves(rows))).layout.yaxis.range
    assert -0.1 < low < 0 < 0.3 < high < 0.4


def test_what_is_carried_has_a_place_of_its_own(last):
    fig = draw.where(last)
    medians = {trace.name: (list(trace.x), trace.y[0]) for trace in fig.data if trace.mode == "lines+markers"}
    assert medians == {"full": (["full"], pytest.approx(0.1)), "mlp": (["mlp"], pytest.approx(0.3))}
    assert list(fig.layout.xaxis.categoryarray) == ["full", "mlp"]


def test_a_wider_draw_stands_beside_what_is_carried(last):
    wider = last[last["front"] == "random init"].assign(cell="code / wider init", front="wider init", gain=0.25)
    fig = draw.where(pd.concat([wider, last]))
    medians = {trace.name: trace.y[0] for trace in fig.data if trace.mode == "lines+markers"}
    assert list(medians) == ["full", "mlp", "wider init"] and medians["wider init"] == 0.25


def test_every_source_has_a_place_in_the_comparison_of_fronts(last):
    fig = draw.fronts(last)
    shown = {trace.name: (list(trace.x), list(trace.y)) for trace in fig.data if trace.showlegend}
    assert shown == {
        "full": (["identity"], [pytest.approx(0.1)]),
        "mlp": (["identity"], [pytest.approx(0.3)]),
    }, "the text is no source, and ten per cent are another share"


def test_a_seed_that_diverged_leaves_the_others_their_median():
    models = pd.DataFrame({"task": "code", "at": 1, "gain": [0.1, np.nan, 0.3], "seed": range(3), "label": "set"})
    dots, median = draw.lines(models, 300, "at", "gain", "label", {"set": {}}, "").data
    assert list(dots.y) == [0.1, 0.3] and list(median.y) == [0.2]
    assert (dots.name, median.name) == ("set, one seed", "set"), "the table of numbers tells them apart"


def test_the_gain_by_budget_and_the_iso_loss_are_told_by_what_is_in_front(models):
    lines = {trace.legendgroup: trace for trace in draw.budgets(models).data if trace.mode == "lines+markers"}
    assert np.allclose(lines["identity 1 %"].y, np.log(2), atol=1e-3)
    assert np.allclose(lines["identity 1 %, width 32"].y, 0.5, atol=1e-3)
    fig = draw.iso_loss(models)
    fronts = {trace.name: list(trace.y) for trace in fig.data if trace.mode == "lines+markers"}
    assert list(fronts) == ["identity 1 %", "identity 1 % / mlp", "random init"], "of the whole width alone"
    assert fronts["random init"] == pytest.approx(2 - np.log(substitutive.SHARES), abs=1e-4)
    assert [shape.y0 for shape in fig.layout.shapes] == [2.0]


@pytest.fixture
def tuning(rows_of) -> pd.DataFrame:
    losses = {"rate 0.012": 2.0, "rate 0.003": 2.1, "embeddings 0.02": 2.2, "weights 0.04": 2.3}
    values = {(f"code / {name}", 590): loss for name, loss in losses.items()} | {("math / rate 0.003", 590): 1.2}
    return analysis.tuning(with_factors(rows_of(values, "loss"), additive.TUNING), additive.FORMER_SIZES["laptop"])


def test_the_tuning_has_a_line_a_corpus_in_a_panel_for_each_setting(tuning):
    drawn = [
        (trace.name, trace.xaxis, trace.mode, list(trace.x), list(trace.y))
        for trace in draw.tuned(tuning, additive.FORMER_SIZES["laptop"]).data
    ]
    assert drawn == [
        ("code", "x", "lines+markers", [0.003, 0.012], [2.1, 2.0]),
        ("code", "x", "markers", [0.012], [2.2]),
        ("math", "x", "lines+markers", [0.003], [1.2]),
        ("code", "x2", "lines+markers", [0.04, 0.08], [2.3, 2.0]),
        ("code", "x3", "lines+markers", [200], [2.0]),
        ("code", "x4", "lines+markers", [0.1], [2.0]),
    ], "what all have is a point of every panel"


@pytest.mark.parametrize(
    ("solution", "cells"),
    [
        (0, {"code / random init", "code / identity 1 %"}),
        (1, {"random init", "identity+eca"}),
    ],
    ids=["tuned", "mixture"],
)
def test_chapter_fives_solutions_print_the_loss_of_each_cell(
    solution, cells, programs, answered, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "corpora"))
    monkeypatch.setattr("structure_first.runs.runner.worker_count", lambda *_: 1)
    exec(programs(CHAPTER)[solution], answered(CHAPTER) | {"out": tmp_path})
    header, *lines, _ = capsys.readouterr().out.splitlines()
    losses = {cell.strip(): float(loss) for cell, _, loss in (line.rpartition(" ") for line in lines)}
    assert header == "cell" and set(losses) == cells
    assert all(1 < loss < np.log(256) for loss in losses.values()), "less than of a guess among all bytes"
