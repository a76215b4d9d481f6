"""Intervals, times to a jump and corrected comparisons, over seeds."""

import numpy as np
import pandas as pd
from einops import einsum
from jaxtyping import Float

RESAMPLES, LEVEL = 10_000, 0.95  # of an interval
LEARNT = 0.9  # a stage one below this held-out accuracy has little to hand on, and is marked


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median of `values`, which may be infinite, and its bootstrap percentile interval: (median, low, high)."""
    values = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(np.median(values[picks], axis=1), ends, method="nearest")  # between infinities lies none
    return float(np.median(values)), float(low), float(high)


def told(form: str, values: pd.Series) -> str:
    """The median and its interval; what is infinite was never reached."""
    each = [form.format(value).replace("inf%", "never") for value in interval(values.dropna().to_numpy())]
    return each[0] if len(set(each)) == 1 else f"{each[0]} ({each[1]} to {each[2]})"


def share_interval(successes: int, trials: int) -> tuple[float, float, float]:
    """A share and its 95 % Wilson interval: sound for few trials and for shares of 0 and 1."""
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return share, float(max(0.0, centre - half)), float(min(1.0, centre + half))


def steps_to(rows: pd.DataFrame, threshold: float) -> pd.Series:
    """The first step at which each seed's accuracy reached `threshold`, else infinite; index: cell, seed."""
    accuracy = rows[(rows["stage"] == 2) & (rows["metric"] == "accuracy")].set_index(["cell", "seed"])
    reached = accuracy["step"].astype(float).where(accuracy["value"] >= threshold, np.inf)
    return reached.groupby(level=["cell", "seed"]).min()


def final(rows: pd.DataFrame, metric: str = "accuracy", stage: int = 2) -> pd.Series:
    """Each seed's last value of `metric`, NaN if it diverged; index: cell, seed."""
    rows = rows[(rows["stage"] == stage) & (rows["metric"] == metric)].sort_values("step")
    return rows.drop_duplicates(["cell", "seed"], keep="last").set_index(["cell", "seed"])["value"].sort_index()


def share_read(rows: pd.DataFrame) -> pd.Series:
    """How much of its stage each row's model had trained on, as a share of the model's last step."""
    return rows["step"] / rows.groupby(["cell", "seed"])["step"].transform("max")


def needed(models: pd.DataFrame, budget: str) -> pd.Series:
    """The `budget` with which each seed's `loss` comes down to its `target`, between the budgets that were tried; only
    of seeds that have a target and ran with every budget, since what has not run is no failure to come down.
    """
    models = models.dropna(subset="target")
    tried = models.groupby("seed")[budget].transform("nunique")
    models = models[tried == tried.max()]
    budgets = {
        seed: reached_at(part[budget].to_numpy(), part["loss"].to_numpy(), part["target"].iloc[0])
        for seed, part in models.sort_values(budget).groupby("seed")
    }
    return pd.Series(budgets, dtype=float)


def reached_at(budgets: np.ndarray, losses: np.ndarray, target: float) -> float:
    """The budget at which the loss first comes down to `target`, between two of the ascending `budgets` by the line
    through their logarithms; infinite where none reaches it, the budget itself where the one before has no loss.
    """
    below = np.flatnonzero(losses <= target)
    if not below.size:
        return np.inf
    after = below[0]
    if not after or np.isnan(losses[after - 1]):
        return float(budgets[after])
    part = (losses[after - 1] - target) / (losses[after - 1] - losses[after])
    return float(budgets[after - 1] * (budgets[after] / budgets[after - 1]) ** part)


def adjusted(gains: Float[np.ndarray, "comparison seed"], most: int = 1 << 12) -> Float[np.ndarray, " comparison"]:
    """Two-sided p-values of paired gains, corrected for so many comparisons (Westfall and Young 1993, single step).

    Were there no effect, a seed's gains could as well have the other sign, all at once: so what chance does to the
    *largest* statistic follows from all sign patterns of the seeds, or from `most` random ones. The statistic is the
    mean over its standard error plus the median standard error, lest a few seeds that happen to agree count as proof.
    """
    seeds = gains.shape[1]
    if 2**seeds <= most:
        signs = 1 - 2 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(most, seeds))
        signs[0] = 1  # what was observed is one of the patterns
    means = einsum(signs, gains, "pattern seed, comparison seed -> pattern comparison") / seeds
    square = (gains**2).mean(1) - means**2  # a gain's square has no sign
    errors = np.sqrt(np.maximum(square, 0) / max(1, seeds - 1))
    statistics = np.abs(means) / (errors + np.median(errors[0]) + 1e-12)
    largest = statistics.max(1, keepdims=True)
    return (largest >= statistics[0] - 1e-12).mean(0)
