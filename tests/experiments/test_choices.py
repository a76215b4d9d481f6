"""Every choice that a tuned baseline has is the one that stored rows of baselines alone make, on seeds of their own."""

from pathlib import Path

import pytest

from structure_first.analysis import text
from structure_first.analysis.stored import stored
from structure_first.evidence.statistics import final
from structure_first.experiments import additive, downstream, haystack, published, published_tuning, skills

RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.mark.parametrize("task", skills.LAPTOP.tuned)
def test_a_diagnostic_begins_where_it_alone_learns_most(task):
    rows = stored(skills.TUNING, RESULTS)
    middle = final(rows[rows["task"] == task]).groupby("cell").median()
    best = skills.TUNING.recipes("laptop")[middle.idxmax()]
    assert best == skills.LAPTOP.tuned[task].recipe(skills.diagnostics("laptop")[task])


def test_the_haystack_begins_where_it_alone_learns_most():
    middle = final(stored(haystack.TUNING, RESULTS)).groupby("cell").median()
    assert haystack.TUNING.recipes("laptop")[middle.idxmax()] == haystack.TUNED.recipe(haystack.stage_two("laptop"))


@pytest.mark.parametrize("swept", ["rate", "weights", "warm-up"])
def test_text_is_trained_as_code_and_language_alone_end_lowest_together(swept):
    size = additive.FORMER_SIZES["laptop"]
    losses = text.baseline(text.tuning(stored(additive.TUNING, RESULTS), size), size)
    tried = losses[(losses["swept"] == swept) & losses["task"].isin(["code", "language"]) & ~losses["narrow"]]
    assert tried.groupby("amount")["loss"].sum().idxmin() == pytest.approx(text.chosen(size)[swept])


@pytest.mark.parametrize("corpus", published.CHOSEN)
def test_the_last_rung_has_what_random_init_of_that_text_wants(corpus):
    rows = stored(published_tuning.EXPERIMENT, RESULTS)
    recipes = published_tuning.EXPERIMENT.recipes("laptop")
    ends = final(rows[rows["task"] == corpus], "loss").groupby("cell").median()
    assert len(ends) == len([cell for cell in recipes if cell.startswith(corpus)]), "all choices have run"
    rung = published.EXPERIMENT.factors("laptop").query(
        "task == @corpus and swept == 'tuned' and front == 'random init'"
    )
    (tuned,) = (published.EXPERIMENT.recipes("laptop")[cell] for cell in rung.index)
    assert recipes[ends.idxmin()] == tuned


def test_a_model_is_trained_on_at_the_rate_at_which_it_alone_ends_lowest():
    rows = stored(downstream.TUNING, RESULTS)
    middle = final(rows, "loss").groupby("cell").median().rename("loss").to_frame()
    rates = middle.join(downstream.TUNING.factors("laptop")["amount"], on="cell").groupby("amount")["loss"].sum()
    assert len(rates) == len(downstream.RATES)
    assert rates.idxmin() == pytest.approx(downstream.RATE * additive.SIZES["laptop"].stage_two.lr)
