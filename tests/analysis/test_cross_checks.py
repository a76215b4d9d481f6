"""What a gain on text is held against: each sentence says what the rows say."""

from pathlib import Path

import pandas as pd
import pytest

from structure_first.analysis import cross_checks, published
from structure_first.analysis.stored import sizes, with_factors
from structure_first.evidence.statistics import final, told
from structure_first.evidence.store import Store
from structure_first.experiments.published_tuning import EXPERIMENT as TUNING

RESULTS = Path(__file__).parents[2] / "book" / "results"
WIDER = "wider start at 0.002"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    stored = Store(RESULTS / "published").rows()
    return stored[stored["scale"] == "laptop"]


def test_how_well_a_front_was_learnt_is_told_of_each_step(rows):
    table = cross_checks.learnt(sizes(published.EXPERIMENT, RESULTS))
    narrow, wide, tuned = (
        pd.concat([final(rows, "mastery").get(f"{corpus} / set{step}") for corpus in ("code", "language", "math")])
        .groupby("seed")
        .first()
        .median()
        for step in ("", f" / {WIDER}", " / tuned at 0.002")
    )
    learnt = {"as published": narrow, "warmed up": narrow, "wider start": wide, "tuned": tuned}
    assert table.loc[128].to_dict() == {step: f"{share:.0%}" for step, share in learnt.items()} and wide < narrow


def test_a_start_is_told_at_every_rate_on_the_seeds_that_ran_at_all_of_them():
    ends = {(2e-3, 700): 1.5, (2e-3, 701): 1.7, (4e-3, 700): 1.6, (1e-3, 700): 1.9}
    lines = [
        dict(task="code", width=128, front=front, swept=start, amount=rate, seed=seed, loss=loss)
        for front, start in (("random init", "wider start"), ("set", "wider start"), ("random init", "warmed up"))
        for (rate, seed), loss in ends.items()
        if start == "wider start" or rate == 2e-3
    ]
    table = cross_checks.rates(pd.DataFrame(lines))
    assert set(table.index) == {("code, width 128", "wider start")}, "the other start has one rate"
    assert table.to_numpy().tolist() == [["0.001", "1.900", 1], ["0.002", "1.500", 1], ["0.004", "1.600", 1]]


def test_what_was_sought_is_told_beside_the_ladders_wider_start(rows_of):
    wide = {"weights 0.06 at 0.002": 1.5, "weights 0.06 at 0.001": 1.7, "weights 0.06 / no dropout at 0.002": 1.625}
    ends = {"code": wide, "math": wide | {"weights 0.09 at 0.002": 1.375}}
    values = {(f"{on} / random init / {name}", 790): loss for on, tried in ends.items() for name, loss in tried.items()}
    found = with_factors(rows_of(values, metric="loss"), TUNING)
    assert cross_checks.sought(found).T.to_dict("list") == {
        ("code, width 128", "weights 0.06"): ["1.700", "1.500"],
        ("code, width 128", "weights 0.06, no dropout"): ["", "1.625"],
        ("math, width 128", "weights 0.06"): ["1.700", "1.500"],
        ("math, width 128", "weights 0.06, no dropout"): ["", "1.625"],
        ("math, width 128", "weights 0.09"): ["", "1.375"],
    }
    on_code, on_math = cross_checks.sought_said(found).splitlines()
    assert on_code.endswith("of 3 choices lowest from weights 0.06 at 0.002, 1.500 nats, the ladder's wider start")
    assert on_math.endswith("from weights 0.09 at 0.002, 1.375 nats, 0.125 lower than the ladder's wider start")


@pytest.mark.parametrize(("metric", "unit"), [("loss", "nats"), ("accuracy", "points"), ("problems", "points")])
def test_every_step_is_told_by_loss_and_by_what_is_right(rows, metric, unit):
    last = final(rows, metric)
    cold, warm, twin = (last[f"math / {what} / {WIDER}"] for what in ("random init", "set", "set / permuted"))
    scale, form = (-1, "{:+z.3f}") if metric == "loss" else (100, "{:+z.1f}")
    lines = cross_checks.by_measure("math", RESULTS)
    steps = list(dict.fromkeys(lines.index.get_level_values("step")))
    assert steps == [step for step in published.STEPS if step in steps] and steps[0] == "as published"
    line = lines.loc["wider start"].iloc[("loss", "accuracy", "problems").index(metric)]
    gains = [told(form, scale * (one - other)) for one, other in ((warm, cold), (twin, cold), (warm, twin))]
    assert line.name.endswith(f", {unit}") and line.to_list() == [*gains, 6]


def test_the_attention_is_told_beside_its_own_numbers_in_either_place(rows):
    said = cross_checks.attention_by_place_said(published.by_place(RESULTS))
    for where, metric in published.PLACES.items():
        last = final(rows, metric)
        ahead = last["code / set / attention permuted"] - last["code / set / attention"]
        assert f"{told('{:+z.3f}', ahead)} {where}" in said


def test_a_baseline_is_told_to_be_as_near_its_own_end_as_a_front_gains():
    texts, losses = (0.25, 0.5, 1.0), {"random init": (3.0, 2.0, 1.0), "set": (2.0, 1.5, 0.5), "late": (4.0, 3.0, 2.0)}
    common = dict(scale="laptop", task="code", width=128, swept="no warm-up", amount=3e-4, target=1.0)
    lines = [
        dict(cell=label, label=label, front=label, seed=seed, step=1000 * text, text=text, loss=loss) | common
        for label, curve in losses.items()
        for seed in range(3)
        for text, loss in zip(texts, curve, strict=True)
    ]
    # half a nat is gained; the baseline is within that of its end half way, by the logarithm, from 0.5 to 1
    found = cross_checks.flat_said(pd.DataFrame(lines))
    assert found.endswith(f"*set*'s gain of its own final loss after {0.5**0.5:.0%} of the text (seeds: 3)")
    assert cross_checks.flat_said(pd.DataFrame(lines), "late") == "", "nothing was gained"
