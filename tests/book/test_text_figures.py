"""Chapters 05 and 06: gains are paired as they say, savings are where the curves cross, and the solutions run."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from structure_first.book import text_figures
from structure_first.evidence.statistics import fraction
from structure_first.evidence.store import COLUMNS
from structure_first.experiments import additive, substitutive
from structure_first.runs.runner import run

CHAPTERS = Path(__file__).parents[2] / "book" / "chapters"
SOLUTIONS = {
    stem: [
        code
        for cell in nbformat.read(CHAPTERS / f"{stem}.ipynb", as_version=4).cells
        if cell.cell_type == "markdown"
        for code in re.findall(r"~~~python\n(.*?)~~~", cell.source, re.DOTALL)
    ]
    for stem in ("05_a_pinch_of_structure", "06_same_loss_less_data")
}
LOSSES = {
    "code / random init": 2.0,
    "code / identity 1 %": 1.9,
    "code / identity 10 % / attention": 2.1,
    "code / identity 1 % / mlp": 1.7,
    "code / text 1 %": 1.8,
}


def row(experiment, cell, seed, step, metric, value, flops=1000):
    return (experiment, "laptop", cell, 2, seed, step, 10 * step, flops, metric, value, "run")


def additive_rows(seeds: int = 3) -> pd.DataFrame:
    """Losses that come down to their cell's from twice as much; a seed's are all 0.1 above the one's before."""
    lines = [
        row("additive", cell, seed, step, "loss", loss * (2 - step / 200) + seed / 10)
        for cell, loss in LOSSES.items()
        for seed in range(seeds)
        for step in (0, 100, 200)
    ]
    lines += [
        row("additive", cell, seed, 0, "mastery", 0.7) for cell in LOSSES if "init" not in cell for seed in range(3)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def substitutive_rows() -> pd.DataFrame:
    """Losses that fall with the logarithm of the share; with a front they are those of twice the text."""
    lines = []
    for share in substitutive.SHARES:
        part = fraction(share)
        for seed in range(2):
            lines.append(
                row("s", f"code / random init / {share}", seed, 10, "loss", 2 - np.log(part), int(1e15 * part))
            )
            lines.append(
                row("s", f"code / identity 1 % / {share}", seed, 10, "loss", 2 - np.log(2 * part), int(1e15 * part))
            )
            lines.append(
                row("s", f"code / identity 1 % / mlp / {share}", seed, 10, "loss", 3 - np.log(part), int(1e15 * part))
            )
            lines.append(row("s", f"code / width 32 / identity 1 % / {share}", seed, 10, "loss", 2.0, int(1e14 * part)))
            lines.append(row("s", f"code / width 32 / random init / {share}", seed, 10, "loss", 2.5, int(1e14 * part)))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def test_gains_are_paired_by_seed_and_step():
    found = text_figures.curves(additive_rows()).set_index(["cell", "seed", "step"])
    assert found.loc[("code / identity 1 %", 2, 200), "gain"] == pytest.approx(0.1)
    assert found.loc[("code / identity 1 %", 2, 100), "gain"] == pytest.approx(0.15)
    told = found.loc[("code / identity 10 % / attention", 0, 200), ["corpus", "front", "share", "carried"]]
    assert told.tolist() == ["code", "identity", "10 %", "attention"]
    assert found.loc[("code / text 1 %", 0, 200), ["front", "share", "carried"]].tolist() == ["text", "1 %", "full"]
    assert found.loc[("code / random init", 1, 200), "gain"] == 0


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_every_cells_name_is_read(scale):
    for cell, recipe in additive.EXPERIMENT.recipes(scale).items():
        told = re.match(text_figures.NAME, cell).groupdict()
        assert told["corpus"] in additive.SIZES[scale].corpora
        assert recipe.stage_one is None or told["share"] in additive.SHARES, cell


def test_the_last_evaluation_counts_even_where_it_came_later():
    rows = additive_rows()
    longer = rows[rows["cell"] == "code / random init"].assign(cell="code / as many FLOPs 10 %")
    longer.loc[longer["step"] == 200, ["step", "value"]] = [215, 1.5]
    last = text_figures.ends(text_figures.curves(pd.concat([rows, longer]))).set_index(["cell", "seed"])
    assert last.loc[("code / as many FLOPs 10 %", 0), "gain"] == pytest.approx(0.5)


def test_the_slider_ends_where_training_ends():
    found = text_figures.curves(additive_rows())
    fig = text_figures.race(found)
    (slider,) = fig.layout.sliders
    assert [step.label for step in slider.steps] == ["0.001 M", "0.002 M"]
    (change,) = slider.steps[-1].args
    assert list(change["x"][0]) == list(fig.data[0].x) and list(change["x"][1]) == list(fig.data[1].x)
    assert sorted(fig.data[1].x) == pytest.approx([-0.1, 0.1, 0.2, 0.3])
    assert "text 1 % " in fig.layout.yaxis.ticktext and len(fig.data[0].x) == 12


def test_what_went_badly_is_drawn_at_the_edge_and_told_as_it_is():
    found = text_figures.curves(additive_rows(seeds=9))
    worst = found.index[(found["cell"] == "code / text 1 %") & (found["step"] == 200) & (found["seed"] == 8)]
    found.loc[worst, "gain"] = -5.0
    fig = text_figures.race(found)
    (told,) = (place for place, text in enumerate(fig.data[0].text) if text == "text 1 %, seed 8: -5.000 nats")
    assert fig.data[0].x[told] == min(fig.data[0].x) > fig.layout.xaxis.range[0] > -0.2


def test_the_dose_is_a_line_over_the_shares():
    fig = text_figures.dose(text_figures.ends(text_figures.curves(additive_rows())))
    lines = {trace.name: trace for trace in fig.data if trace.mode == "lines+markers"}
    assert list(lines["identity"].x) == [0.01] and lines["identity"].y[0] == pytest.approx(0.1)
    assert lines["identity, mlp alone"].y[0] == pytest.approx(0.3) and lines["text"].y[0] == pytest.approx(0.2)


def test_a_seed_gone_astray_leaves_room_for_the_medians():
    rows = additive_rows(seeds=9)
    astray = (rows["cell"] == "code / text 1 %") & (rows["step"] == 200) & (rows["seed"] == 8)
    rows.loc[astray & (rows["metric"] == "loss"), "value"] = 9.0
    low, high = text_figures.dose(text_figures.ends(text_figures.curves(rows))).layout.yaxis.range
    assert -0.1 < low < 0 < 0.3 < high < 0.4


def test_what_stage_one_learnt_counts_whatever_of_it_goes_across():
    last, size = text_figures.ends(text_figures.curves(additive_rows())), additive.SIZES["laptop"]
    told = {"1 %: 41,280 tokens": "70%", "10 %: 412,800 tokens": "70%"}
    assert text_figures.learnt(last, size).T.to_dict() == {"identity": told}, "text is no rule to be learnt"


def test_the_tuning_shows_the_baseline_apart_from_the_pinch_at_its_rates():
    losses = {
        "code / rate 0.003": 1.9,
        "code / rate 0.012": 1.5,
        "code / identity 1 % / mlp / rate 0.012": 1.6,
        "code / identity 1 % / rate 0.003": 1.8,
        "code / warm-up 100": 1.4,
        "code / identity 1 % / warm-up 100": 1.3,
        "code / warm-up 50": 1.9,
        "code / weights 0.04": 1.7,
        "code / decay 0": 1.3,
        "code / identity 1 % / decay 0": 1.5,
        "math / rate 0.003": 1.2,
    }
    lines = [row("t", cell, seed, 10, "loss", loss + seed / 10) for cell, loss in losses.items() for seed in range(3)]
    lines += [row("t", "code / rate 0.024", 1, 10, "loss", 1.8)]
    rows = pd.DataFrame(lines, columns=list(COLUMNS))
    tuned = text_figures.tuned(rows)
    assert {trace.name for trace in tuned.data} == {"code", "math"}
    (code,) = (trace for trace in tuned.data if trace.name == "code" and trace.xaxis == "x")
    assert (list(code.x), list(code.y)) == ([0.003, 0.012, 0.024], [2.0, 1.6, 1.8]), "of the seed that all have"
    fig = text_figures.choices(rows)
    lines = [trace for trace in fig.data if trace.mode == "lines+markers"]
    rates, warmups, decays = (
        {trace.name: (list(trace.x), list(trace.y)) for trace in lines if trace.xaxis == axis}
        for axis in ("x", "x2", "x3")
    )
    assert rates["random init"] == ([0.003, 0.012], [2.0, 1.6]) and rates["identity 1 %"] == ([0.003], [1.9])
    assert warmups["random init"] == ([100, 200], [1.5, 1.6]), "200 is the runs' own, at their own rate"
    assert warmups["identity 1 %"] == ([100], [1.4]) and warmups["identity 1 % / mlp"] == ([200], [1.7])
    assert decays["random init"] == ([0, 0.1], [1.4, 1.6]) and decays["identity 1 %"] == ([0], [1.6])
    assert list(fig.layout.xaxis3.categoryarray) == [0, 0.1] and fig.layout.xaxis3.type == "category"
    assert [trace.name for trace in fig.data if trace.showlegend] == list(rates)
    assert len(fig.layout.annotations) == 1, "math has no pinch at any rate"


def test_what_is_carried_has_a_place_of_its_own():
    fig = text_figures.where(text_figures.ends(text_figures.curves(additive_rows())))
    medians = {trace.name: (list(trace.x), trace.y[0]) for trace in fig.data if trace.mode == "lines+markers"}
    assert medians == {"full": (["full"], pytest.approx(0.1)), "mlp": (["mlp"], pytest.approx(0.3))}
    assert list(fig.layout.xaxis.categoryarray) == ["full", "mlp"]


def test_every_source_has_a_place_in_the_comparison_of_fronts():
    fig = text_figures.fronts(text_figures.ends(text_figures.curves(additive_rows())))
    shown = {trace.name: (list(trace.x), list(trace.y)) for trace in fig.data if trace.showlegend}
    assert shown == {
        "full": (["identity"], [pytest.approx(0.1)]),
        "mlp": (["identity"], [pytest.approx(0.3)]),
    }, "the text is no source, and ten per cent are another share"


def test_a_saving_is_where_the_curve_meets_the_baselines_end():
    models = text_figures.by_share(substitutive_rows())
    table = text_figures.savings(models)
    whole = table[table["width"] == "whole"].set_index("in front")
    assert whole.loc["identity 1 %", "of the text"] == "50%"
    spent = additive.spent(substitutive.EXPERIMENT.recipes("laptop")["code / identity 1 % / 50 %"])[1]
    assert whole.loc["identity 1 %", "of the FLOPs"] == f"{0.5 + spent / 1e15:.0%}"
    assert whole.loc["identity 1 % / mlp", "of the text"] == "> 100%"
    assert whole.loc["identity 1 %", "paper, of the text"] == "67%"
    small = table[table["width"] == "32"].set_index("in front")
    assert small.loc["identity 1 %", "of the text"] == "25%", "against the small model's own baseline"


def test_before_any_baseline_has_all_of_the_text_the_table_of_savings_is_empty():
    models = text_figures.by_share(substitutive_rows())
    table = text_figures.savings(models.assign(target=np.nan))
    assert table.empty and table.index.name == "corpus"


def test_the_gain_by_budget_is_over_the_same_share():
    fig = text_figures.budgets(text_figures.by_share(substitutive_rows()))
    lines = {trace.legendgroup: trace for trace in fig.data if trace.mode == "lines+markers"}
    assert np.allclose(lines["identity 1 %"].y, np.log(2), atol=1e-3)
    assert np.allclose(lines["identity 1 %, width 32"].y, 0.5, atol=1e-3)
    dotted = text_figures.iso_loss(text_figures.by_share(substitutive_rows())).layout.shapes
    assert [line.y0 for line in dotted] == [2.0]


def test_the_tuning_has_a_line_a_corpus():
    cells = {"code / rate 0.012": 2.0, "code / rate 0.003": 2.1, "code / embeddings 0.02": 2.2}
    cells |= {"code / weights 0.04": 2.3}
    rows = pd.DataFrame([row("t", cell, 0, 10, "loss", loss) for cell, loss in cells.items()], columns=list(COLUMNS))
    rates, cross, weights, warm_up, decay = text_figures.tuned(rows).data
    assert (list(rates.x), list(rates.y)) == ([0.003, 0.012], [2.1, 2.0]) and list(cross.y) == [2.2]
    assert (list(weights.x), list(weights.y)) == ([0.04, 0.08], [2.3, 2.0]), "what all have is a point of every panel"
    assert (list(warm_up.x), list(warm_up.y)) == ([200], [2.0])
    assert (list(decay.x), list(decay.y)) == ([0.1], [2.0])


@pytest.mark.parametrize("code", SOLUTIONS["05_a_pinch_of_structure"])
def test_chapter_fives_solutions_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "corpora"))
    exec(code, {"additive": additive, "run": run, "scale": "smoke", "out": tmp_path, "Path": Path})
    assert "random init" in capsys.readouterr().out


@pytest.mark.parametrize("code", SOLUTIONS["06_same_loss_less_data"])
def test_chapter_sixes_solutions_run(code, capsys):
    live = substitutive.EXPERIMENT
    rows = substitutive_rows()
    rows = pd.concat([rows, rows.assign(step=5, value=rows["value"] + 0.5)])
    rows = rows[rows["seed"] == 0].sort_values("step")
    exec(code, {"live": live, "rows": rows})
    assert "%" in (said := capsys.readouterr().out) or len(said.splitlines()) == 5
