"""Chapters 05 and 06: gains are paired as they say, and savings are where the curves cross."""

import json

import numpy as np
import pandas as pd
import pytest

from structure_first.analysis import text
from structure_first.analysis.stored import with_factors
from structure_first.experiments import additive, substitutive

SIZE = additive.FORMER_SIZES["laptop"]


def test_gains_are_paired_by_seed_and_step(pinches):
    found = text.curves(pinches()).set_index(["cell", "seed", "step"])
    assert found.loc[("code / identity 1 %", 2, 200), "gain"] == pytest.approx(0.1)
    assert found.loc[("code / identity 1 %", 2, 100), "gain"] == pytest.approx(0.15)
    told = found.loc[("code / identity 10 % / attention", 0, 200), ["task", "front", "share", "carried"]]
    assert told.tolist() == ["code", "identity", 0.1, "attention"]
    assert found.loc[("code / text 1 %", 0, 200), ["front", "share", "carried"]].tolist() == ["text", 0.01, "full"]
    assert found.loc[("code / random init", 1, 200), "gain"] == 0


def test_a_seed_without_a_baseline_has_no_gain_and_lends_its_place_to_no_other(pinches):
    rows = pinches()
    late = rows[(rows["cell"] != "code / random init") | (rows["seed"] > 0)].sample(frac=1, random_state=0)
    gain = text.ends(text.curves(late)).set_index(["cell", "seed"])["gain"]["code / identity 1 %"]
    assert np.isnan(gain[0]) and gain[[1, 2]].to_list() == pytest.approx([0.1, 0.1])


def test_the_last_evaluation_counts_even_where_it_came_later(pinches):
    rows = pinches()
    longer = rows[rows["cell"] == "code / random init"].assign(cell="code / as many FLOPs 10 %", front="as many FLOPs")
    longer.loc[longer["step"] == 200, ["step", "value"]] = [215, 1.5]
    last = text.ends(text.curves(pd.concat([rows, longer]))).set_index(["cell", "seed"])
    assert last.loc[("code / as many FLOPs 10 %", 0), "gain"] == pytest.approx(0.5)


def test_people_call_a_front_by_its_share_and_by_what_is_carried_where_that_is_not_all(pinches):
    found = text.curves(pinches()).drop_duplicates("cell").set_index("cell")
    assert text.labels(found).to_dict() == {
        "code / random init": "random init",
        "code / identity 1 %": "identity 1 %",
        "code / identity 1 % / mlp": "identity 1 % / mlp",
        "code / identity 10 % / attention": "identity 10 % / attention",
        "code / text 1 %": "text 1 %",
    }
    assert text.labels(found, ", ")["code / identity 1 % / mlp"] == "identity 1 %, mlp"


def test_what_stage_one_learnt_counts_whatever_of_it_goes_across(pinches):
    last = text.ends(text.curves(pinches()))
    told = {"1 %: 41,280 tokens": "70%", "10 %: 412,800 tokens": "70%"}
    assert text.learnt(last, SIZE).T.to_dict() == {"identity": told}, "text is no rule to be learnt"
    last.loc[last["share"] == 0.1, "learnt"] = 0.95
    told = "by the size of the front: 1 %: 0 of 1, 10 %: 1 of 1."
    assert text.learnt_said(last).endswith(told)
    ruled = last[last["front"] == "identity"]
    without = pd.concat([last, *(ruled.assign(front=each, learnt=0.0) for each in ("random tokens", "shuffled set"))])
    assert text.learnt_said(without).endswith(told), "what has no rule has none to be learnt"


@pytest.fixture
def swept(rows_of) -> pd.DataFrame:
    losses = {
        "code / rate 0.003": 1.9,
        "code / rate 0.012": 1.5,
        "code / warm-up 100": 1.4,
        "code / warm-up 50": 1.9,
        "code / weights 0.04": 1.7,
        "code / embeddings 0.02": 2.2,
        "code / decay 0.3": 1.3,
        "math / rate 0.003": 1.2,
    }
    values = {(cell, seed): loss + seed / 10 for cell, loss in losses.items() for seed in range(3)}
    rows = rows_of(values | {("code / rate 0.024", 1): 1.8}, "loss")
    return text.tuning(with_factors(rows, additive.TUNING), SIZE)


def points(found: pd.DataFrame, value: str = "loss") -> dict[float, float]:
    return dict(zip(found["amount"], found[value].round(6), strict=True))


def test_the_tuned_baseline_is_of_the_seeds_that_all_cells_have(swept):
    code = text.baseline(swept, SIZE).query("task == 'code'")
    wide = code[~code["narrow"]].groupby("swept")
    assert {what: points(part) for what, part in wide} == {
        "rate": {0.003: 2.0, 0.012: 1.6, 0.024: 1.8},
        "weights": {0.04: 1.8, 0.08: 1.6},  # the runs' own rate, warm-up and decay are a point of every sweep
        "warm-up": {50: 2.0, 100: 1.5, 200: 1.6},
        "decay": {0.1: 1.6, 0.3: 1.4},
    }
    narrow = code[code["narrow"]]
    assert narrow["swept"].to_list() == ["rate"] and points(narrow) == {0.012: 2.3}


@pytest.fixture
def models(shares) -> pd.DataFrame:
    return text.by_share(shares, substitutive.FORMER)


def test_a_saving_is_where_the_curve_meets_the_baselines_end(models):
    table = text.savings(models)
    whole = table[table["width"] == "64"].set_index("in front")
    assert whole.loc["identity 1 %", "of the text"] == "50%"
    spent = additive.spent(substitutive.FORMER.recipes("laptop")["code / identity 1 % / 50 %"])[1]
    assert whole.loc["identity 1 %", "of the FLOPs"] == f"{0.5 + spent / 1e15:.0%}"
    assert whole.loc["identity 1 % / mlp", "of the text"] == "> 100%"
    assert whole.loc["identity 1 %", "paper, of the text"] == "67% (set)"
    twin = text.savings(models.replace({"label": {"identity 1 %": "identity 1 %, permuted"}}))
    assert set(twin.loc[twin["in front"].str.contains("permuted"), "paper, of the text"]) == {""}, "the paper has none"
    small = table[table["width"] == "32"].set_index("in front")
    assert small.loc["identity 1 %", "of the text"] == "25%", "against the small model's own baseline"


def test_the_target_of_each_seed_is_its_own_baseline(shares):
    rows = shares.copy()
    rows["value"] += rows["seed"]  # the seeds differ by more than any share of the text does
    table = text.savings(text.by_share(rows.sample(frac=1, random_state=0), substitutive.FORMER))
    assert table.loc[table["width"] == "64", "of the text"].to_list() == ["50%", "> 100%"]


def test_before_any_baseline_has_all_of_the_text_the_table_of_savings_is_empty(models):
    table = text.savings(models.assign(target=np.nan))
    assert table.empty and table.index.name == "corpus"
    assert text.savings_said(table).startswith("In 0 of 0 comparisons")


def test_the_savings_in_words_count_what_never_came_down(models):
    said = text.savings_said(text.savings(models))
    assert said.startswith("In 1 of 3 comparisons") and "In 0 of these the interval" in said


def test_every_front_of_one_per_cent_has_a_line_from_the_best(pinches):
    table = text.every_front(text.ends(text.curves(pinches())))
    assert list(table.index) == ["identity 1 %, mlp", "text 1 %", "identity 1 %"], "ten per cent is no pinch"
    assert table["code"].str.split().str[0].to_list() == ["+0.300", "+0.200", "+0.100"]
    assert set(table["seeds"]) == {3}


def test_the_sides_in_words_name_what_helped_on_each_corpus(pinches):
    last = text.at_once(text.ends(text.curves(pinches())))
    assert set(last["front"]) >= {"random init", "identity", "text"} and set(last["share"].dropna()) == {0.01}
    said = text.sides_said(last)
    assert "*identity 1 %, mlp* on code" in said and said.endswith(" are below it on every corpus.")


def test_the_gain_at_each_budget_is_over_the_same_share(models):
    gains = text.at_each_budget(models).groupby("label")["gain"]
    assert gains.apply(lambda each: set(each.round(6))).to_dict() == {
        "identity 1 %": {round(np.log(2), 6)},
        "identity 1 % / mlp": {-1.0},
        "identity 1 %, width 32": {0.5},
    }


def test_what_was_packed_is_read_from_the_manifest_by_corpus():
    source = {"name": "packed:code", "tokens": 1_234_567}
    read = {"stage": 2, "recipe": {"stage_two": {"source": "code@1/bytes"}}, "source": source}
    first = {"stage": 1, "recipe": {"stage_two": None}, "source": {"name": "identity"}}
    table = text.sizes(SIZE, json.loads(json.dumps({"runs": {"a": first, "b": read}})))
    assert table["packed to train on"].to_dict() == {"language": "", "code": "1,234,567", "math": ""}
    assert table.loc["code", ["text", "model"]].to_list() == ["code@1", "2 layers, 4 heads, width 64"]
    assert set(table["read in stage two"]) == {"4,128,000"}
