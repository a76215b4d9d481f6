"""Intervals cover what they should, and a seed that never jumped counts as one that never jumped."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from structure_first.evidence.statistics import (
    adjusted,
    final,
    interval,
    needed,
    reached_at,
    share_interval,
    share_read,
    steps_to,
    told,
)


def curves(values: dict[tuple[str, int], list[float]], metric: str = "accuracy", stage: int = 2) -> pd.DataFrame:
    """Rows of a value every 100 steps for each (cell, seed)."""
    return pd.DataFrame(
        dict(cell=cell, seed=seed, stage=stage, metric=metric, step=100 * (i + 1), value=value)
        for (cell, seed), column in values.items()
        for i, value in enumerate(column)
    )


@pytest.mark.parametrize(("draw", "truth"), [("normal", 0.0), ("exponential", np.log(2))])
def test_the_interval_covers_about_as_often_as_it_says(draw, truth):
    random = np.random.default_rng(1)
    samples = getattr(random, draw)(size=(200, 12))
    covered = [low <= truth <= high for _, low, high in map(interval, samples)]
    assert 0.86 <= np.mean(covered) <= 0.99  # a bootstrap of twelve is a little too narrow for 0.95


def test_the_interval_is_the_same_each_time_and_holds_the_estimate():
    values = np.array([0.1, 0.9, 0.95, 0.97, 0.99, 1.0])
    median, low, high = interval(values)
    assert (median, low, high) == interval(values) and low <= median <= high
    assert median == pytest.approx(0.96)
    assert interval(np.array([0.5])) == (0.5, 0.5, 0.5)
    squares = np.linspace(0, 1, 100) ** 2
    assert interval(squares) == interval(squares), "of many values too"


def test_the_interval_of_times_that_may_be_infinite():
    assert interval(np.array([100.0, 200.0, np.inf, np.inf, np.inf]))[0] == np.inf
    _, low, high = interval(np.array([100.0, 200.0, 300.0, np.inf, np.inf]))
    assert low == 100 and high == np.inf
    assert interval(np.full(5, np.inf)) == (np.inf,) * 3


def test_what_is_told_has_an_interval_unless_all_of_it_reads_the_same():
    assert told("{:.0%}", pd.Series([0.5, 0.5, 0.9])) == "50% (50% to 90%)"
    assert told("{:.0%}", pd.Series([0.5, 0.501, np.nan])) == "50%", "what was not measured is left out"
    assert told("{:.0%}", pd.Series([0.5, np.inf, np.inf])) == "never (50% to never)"


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(9, 10, 0.5958, 0.9821), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilsons_interval(successes, trials, low, high):
    """Against the values that textbooks and R's binom.confint give."""
    assert share_interval(successes, trials) == pytest.approx((successes / trials, low, high), abs=1e-4)


def test_the_time_to_a_jump_is_infinite_without_one():
    rows = curves({("dyck", 0): [0.97, 0.9, 0.96], ("dyck", 1): [0.2, 0.2, 0.95], ("random init", 0): [0.1, 0.2, 0.2]})
    rows = pd.concat([rows, curves({("random init", 0): [5.0]}, "loss"), curves({("stage one", 0): [1.0]}, stage=1)])
    steps = steps_to(rows, 0.95)
    assert steps.to_dict() == {("dyck", 0): 100, ("dyck", 1): 300, ("random init", 0): np.inf}


def test_the_last_value_of_each_seed_counts_even_if_it_diverged():
    rows = curves({("dyck", 0): [0.2, 0.97, 0.9], ("dyck", 1): [0.2, np.nan]}).sample(frac=1, random_state=0)
    last = final(rows)
    assert last["dyck", 0] == 0.9 and np.isnan(last["dyck", 1])
    assert final(rows, "loss").empty


def test_what_was_read_is_a_share_of_each_models_own_steps():
    rows = curves({("dyck", 0): [0.2, 0.3, 0.4, 0.5], ("dyck", 1): [0.2, 0.3]})
    assert share_read(rows).tolist() == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0]


def test_the_correction_keeps_chance_from_winning_anywhere_and_lets_a_real_gain_through():
    random = np.random.default_rng(0)
    tables = [random.normal(size=(50, 8)) for _ in range(200)]
    wrong = np.mean([adjusted(table).min() <= 0.05 for table in tables])
    assert wrong <= 0.09, "with nothing there, about one table in twenty may have a winner"
    tables[0][7] += 4
    found = adjusted(tables[0])
    assert found.argmin() == 7 and found[7] == 2 / 2**8
    assert np.array_equal(adjusted(-tables[0]), found), "it is two-sided"


def by_hand(gains: np.ndarray) -> np.ndarray:
    """The corrected p-values as their definition has them, over every sign pattern of the seeds."""
    seeds = gains.shape[1]
    spread = np.median(gains.std(1) / (seeds - 1) ** 0.5)  # of what was observed

    def statistics(gains):
        return np.abs(gains.mean(1)) / (gains.std(1) / (seeds - 1) ** 0.5 + spread)

    largest = np.array([statistics(gains * np.array(signs)).max() for signs in product((-1, 1), repeat=seeds)])
    return np.array([(largest >= observed - 1e-9).mean() for observed in statistics(gains)])


@pytest.mark.parametrize("comparisons", [1, 2, 7])
def test_few_seeds_are_counted_by_hand(comparisons):
    effects = np.linspace(0.5, 2.0, comparisons)[:, None]
    gains = np.random.default_rng(comparisons).normal(effects, size=(comparisons, 5))
    found = adjusted(gains)
    assert found == pytest.approx(by_hand(gains)) and found.min() < 0.5


def test_more_comparisons_make_each_less_certain_and_the_same_one_twice_does_not():
    """Seeds keep their signs together: were each comparison to draw its own, a copy would cost as much as any other."""
    gains = np.random.default_rng(3).normal(1.0, size=(1, 8))
    alone = adjusted(gains)[0]
    others = np.random.default_rng(4).normal(size=(40, 8))
    assert adjusted(np.concatenate([gains, others]))[0] > 1.5 * alone
    assert adjusted(np.repeat(gains, 40, 0)) == pytest.approx([alone] * 40)


def test_of_many_seeds_random_signs_are_near_what_all_signs_say():
    gains = np.random.default_rng(5).normal([[0.0], [0.9], [1.1], [1.3]], size=(4, 13))
    found, exact = adjusted(gains), adjusted(gains, most=1 << 13)
    assert exact == pytest.approx(by_hand(gains))
    assert found == pytest.approx(exact, abs=0.01) and not np.array_equal(found, exact), "4,096 of 8,192 patterns"
    assert np.array_equal(adjusted(gains), found), "the same each time"


def test_of_many_seeds_no_gain_is_more_certain_than_the_patterns_that_were_drawn():
    certain = np.random.default_rng(6).normal(9.0, 0.1, size=(3, 30))
    assert adjusted(certain).min() == 1 / (1 << 12), "what was observed is one of them, and counts"


def test_of_many_seeds_chance_wins_as_seldom():
    random = np.random.default_rng(7)
    wrong = np.mean([adjusted(random.normal(size=(20, 14)), most=400).min() <= 0.05 for _ in range(200)])
    assert 0.01 <= wrong <= 0.09


@settings(deadline=None)
@given(
    st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6, unique=True),
    st.floats(0.1, 3.0),
    st.floats(0.0, 0.999),
)
def test_a_loss_that_falls_with_the_logarithm_is_met_where_it_passes(budgets, slope, part):
    budgets = np.sort(budgets)
    assume(budgets[-1] > 1.001 * budgets[0])  # else rounding decides whether the last loss is low enough
    losses = 2.0 - slope * np.log(budgets)
    wanted = budgets[0] * (budgets[-1] / budgets[0]) ** part
    assert reached_at(budgets, losses, 2.0 - slope * np.log(wanted)) == pytest.approx(wanted, rel=1e-6)


def models(losses: dict[tuple[int, float], float], targets: dict[int, float]) -> pd.DataFrame:
    """A line for each (seed, share of the text), in an order that tells nothing."""
    lines = [{"seed": seed, "text": text, "loss": loss} for (seed, text), loss in losses.items()]
    found = pd.DataFrame(lines).sample(frac=1, random_state=0)
    return found.assign(target=found["seed"].map(targets))


def test_what_is_needed_lies_between_two_shares_and_is_each_seeds_own():
    losses = {(0, 0.25): 3.0, (0, 1.0): 1.0, (1, 0.25): 5.0, (1, 1.0): 4.0}
    found = needed(models(losses, {1: 5.0, 0: 2.0}), "text")
    assert found.to_dict() == {0: pytest.approx(0.5), 1: 0.25}


def test_a_seed_that_lacks_a_share_or_its_target_counts_neither_way():
    losses = {(seed, text): 3.0 for text in (0.25, 0.5, 1.0) for seed in (0, 3)}
    losses |= {(1, 0.25): 3.0, (1, 0.5): 3.0}  # all of the text has yet to run
    losses |= {(2, 0.25): 3.0, (2, 0.5): 3.0, (2, 1.0): np.nan}  # it diverged
    found = needed(models(losses, dict.fromkeys(range(3), 2.0)), "text")
    assert found.to_dict() == {0: np.inf, 2: np.inf}


def test_a_loss_that_is_never_met_needs_an_infinite_budget_and_one_met_at_once_the_smallest():
    budgets, losses = np.array([0.25, 0.5, 1.0]), np.array([3.0, 2.0, 2.5])
    assert reached_at(budgets, losses, 1.9) == np.inf
    assert reached_at(budgets, losses, 3.5) == 0.25
    assert reached_at(budgets, losses, 2.0) == pytest.approx(0.5)  # the first time, though it rises again
    assert reached_at(budgets, np.array([3.0, np.nan, 1.0]), 2.0) == 1.0  # what diverged draws no line
