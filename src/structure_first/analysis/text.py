"""Chapters 05 and 06: what structure in front does to the loss on text."""

from dataclasses import asdict

import pandas as pd

from structure_first.analysis.stored import ended, ordered, over_seeds, untreated
from structure_first.errors import UserError
from structure_first.evidence.statistics import LEARNT, final, interval, needed, told
from structure_first.experiments import additive
from structure_first.experiments.text import percent
from structure_first.runs.recipe import Experiment

SWEPT = {  # in a tuning
    "rate": "learning rate",
    "weights": "first weights' deviation",
    "warm-up": "warm-up, updates",
    "decay": "weight decay",
}
# Of the text, for the loss of all of it, after the source that it is least with (Jiang et al. 2026).
PAPER = {"language": "55% (sort)", "code": "67% (set)", "math": "86% (set)"}


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss (nats a token) of every model at every evaluation, its gain over random init with the same seed at
    the same step, its cell's factors, and how well its stage one was learnt.
    """
    evaluations = rows[(rows["stage"] == 2) & (rows["metric"] == "loss")].sort_values(["cell", "seed", "step"])
    evaluations = evaluations.rename(columns={"value": "loss"}).reset_index(drop=True)
    evaluations = evaluations[["cell", "task", "front", "carried", "share", "seed", "step", "tokens", "loss"]]
    learnt = final(rows, "mastery").rename("learnt")
    return evaluations.assign(gain=gains(evaluations, ["task", "seed", "step"])).join(learnt, on=["cell", "seed"])


def gains(losses: pd.DataFrame, alike: list[str]) -> pd.Series:
    """How much lower each loss is than that of random init where these columns are alike; NaN where there is none."""
    return untreated(losses, alike)["loss"] - losses["loss"]


def ends(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every model; its gain is over the last of random init on its corpus, whenever that was."""
    last = evaluations.drop_duplicates(["cell", "seed"], keep="last")
    return last.assign(gain=gains(last, ["task", "seed"]))


def labels(fronts: pd.DataFrame, joint: str = " / ") -> pd.Series:
    """What people call each front: with its share, and what goes across where that is not all of the body."""
    shares = fronts["share"].map(lambda share: "" if pd.isna(share) else f" {percent(share)}")
    carried = fronts["carried"].map(lambda part: "" if pd.isna(part) or part == "full" else joint + part)
    return fronts["front"] + shares + carried


def tuning(rows: pd.DataFrame, size: additive.Size) -> pd.DataFrame:
    """The final loss of every model of a tuning, by what was `swept` and the `amount` of it; models that have all
    settings as the runs do stand in every sweep.
    """
    last = ended(rows, "loss")
    last["amount"] = last["amount"].astype(float).round(9)  # three times 0.1 is 0.3
    own = chosen(size)
    base = last[(last["swept"] == "rate") & (last["amount"] == own["rate"])]
    return pd.concat([last, *(base.assign(swept=what, amount=own[what]) for what in own if what != "rate")])


def chosen(size: additive.Size) -> dict[str, float]:
    """What the runs have of all that was swept."""
    stage = size.stage_two
    return {"rate": stage.lr, "weights": size.body.init, "warm-up": stage.warmup, "decay": stage.weight_decay}


def baseline(models: pd.DataFrame, size: additive.Size) -> pd.DataFrame:
    """Of a tuning the median of each cell, over the seeds that all cells have; GPT-2's `narrow` embeddings stand at the
    rate that they had.
    """
    cells = models.groupby("seed")["cell"].nunique()
    whole = models[models["seed"].isin(cells[cells == models["cell"].nunique()].index)]
    median = whole.groupby(["cell", "task", "swept", "amount"], as_index=False)["loss"].median()
    median["narrow"] = median["swept"] == "embeddings"
    median.loc[median["narrow"], ["swept", "amount"]] = "rate", chosen(size)["rate"]
    return median


def mastered(last: pd.DataFrame) -> pd.DataFrame:
    """How much of stage one each procedural front learnt, a column a share, whatever of it goes across."""
    known = last[last["learnt"].notna() & (last["front"] != "text")]
    by_cell = known.groupby(["cell", "front", "share"], sort=False)["learnt"].median()
    return by_cell.groupby(["front", "share"]).median().unstack("share")


def learnt(last: pd.DataFrame, size: additive.Size) -> pd.DataFrame:
    """The same as a table, with about how many tokens it was learnt on."""
    shown = mastered(last)
    shown.columns = [f"{percent(share)}: {share * size.tokens:,.0f} tokens" for share in shown]
    return shown.map(lambda value: "" if pd.isna(value) else f"{value:.0%}")


def learnt_said(last: pd.DataFrame) -> str:
    """Of how many fronts that have a rule it was learnt at each share, in words."""
    told = []
    for share, column in mastered(last[last["front"].isin(additive.SOURCES)]).items():
        fronts = column.dropna()
        if len(fronts):
            told.append(f"{percent(share)}: {(fronts >= LEARNT).sum()} of {len(fronts)}")
    return f"Rules that were learnt to {LEARNT:.0%} or more, by the size of the front: {', '.join(told)}."


def by_share(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """A line for each model: its factors, final loss, the `target` that all of the text buys with nothing in front, and
    the FLOPs of both stages as a share of what that costs.
    """
    second = rows[rows["stage"] == 2]
    last = ended(rows, "loss").join(second.groupby(["cell", "seed"])["flops"].max().astype(float), on=["cell", "seed"])
    recipes = experiment.recipes(rows["scale"].iloc[0])
    first = {cell: additive.spent(recipes[cell])[1] for cell in last["cell"].unique()}
    last["flops"] += last["cell"].map(first)
    last["label"], alike = labels(last), ["task", "width", "seed"]
    whole = last[(last["front"] == "random init") & (last["text"] == 1)].set_index(alike)[["loss", "flops"]]
    last = last.join(whole.rename(columns={"loss": "target", "flops": "whole"}), on=alike)
    return last.assign(**{"flops share": last["flops"] / last["whole"]})


def at_once(models: pd.DataFrame) -> pd.DataFrame:
    """One per cent of every source with all of its body, the main one with any part too, and what has no stage one."""
    one_per_cent = models["share"].isna() | (models["share"] == additive.CONTROLLED[0])
    whole = models["carried"].isna() | (models["carried"] == "full")
    return models[one_per_cent & (whole | (models["front"] == additive.MAIN))]


def every_front(last: pd.DataFrame) -> pd.DataFrame:
    """The gain of what is shown `at_once`, in nats a token: a line for each, from the best, a column a corpus."""
    here = at_once(last[last["front"] != "random init"])
    here = here.assign(front=labels(here, ", ")).dropna(subset="gain")
    best = here.groupby("front")["gain"].median().sort_values(ascending=False)
    return over_seeds(ordered(here, "front", best.index), "gain", ["front"], "task")


def sides_said(last: pd.DataFrame) -> str:
    """On which side of random init each front ends by more than its seeds scatter, in words."""
    known = last[(last["front"] != "random init") & last["gain"].notna()]
    ends = known.groupby([labels(known, ", "), "task"])["gain"].apply(lambda seeds: interval(seeds.to_numpy()))
    above = ends.map(lambda end: end[1] > 0).unstack(fill_value=False)
    below = ends.map(lambda end: end[2] < 0).unstack(fill_value=False)
    helped = [f"*{label}* on {' and '.join(row.index[row])}" for label, row in above[above.any(axis=1)].iterrows()]
    return (
        f"Of {len(below)} rows, {len(helped)} {'is' if len(helped) == 1 else 'are'} above random init on some corpus "
        f"by more than the seeds scatter{': ' * bool(helped)}{', '.join(helped)}. "
        f"{below.all(axis=1).sum()} are below it on every corpus."
    )


def savings_said(table: pd.DataFrame) -> str:
    """What the table of `savings` comes to, in words."""
    shares = table["of the text"]
    never, touch = shares.str.startswith(">"), shares.str.contains(r"\(\d")
    return (
        f"In {never.sum()} of {len(table)} comparisons the median front is still above the loss that random init ends "
        f"at when all of the text is read: no saving. In {(never & touch).sum()} of these the interval over seeds "
        "reaches below all of it."
    )


def savings(models: pd.DataFrame) -> pd.DataFrame:
    """The share of the text, and of all FLOPs, that reaches the loss of all of it: median and interval over seeds."""
    columns = ["corpus", "width", "in front", "seeds", "of the text", "of the FLOPs", "paper, of the text"]
    lines, models = [], models[models["front"] != "random init"]
    for (corpus, width, front), part in models.groupby(["task", "width", "label"], sort=False):
        budgets = {budget: needed(part, budget) for budget in ("text", "flops share")}
        seeds = len(budgets["text"])
        if seeds:
            shares = [
                told("{:.0%}", by_seed).replace("never", f"> {part[budget].max():.0%}")
                for budget, by_seed in budgets.items()
            ]
            paper = "" if "permuted" in front else PAPER.get(corpus, "")
            lines.append([corpus, f"{width:g}", front, seeds, *shares, paper])
    return pd.DataFrame(lines, columns=columns).set_index("corpus")


def at_each_budget(models: pd.DataFrame) -> pd.DataFrame:
    """The gain of every front over random init on the same share of the text; a `label` tells a smaller width."""
    narrow = models["width"].map(lambda width: "" if width == models["width"].max() else f", width {width:g}")
    models = models.assign(gain=gains(models, ["task", "width", "text", "seed"]), label=models["label"] + narrow)
    return models[(models["front"] != "random init") & models["gain"].notna()]


def sizes(size: additive.Size, manifest: dict) -> pd.DataFrame:
    """What the stored runs trained on, a line a corpus: the model, the tokens that were packed, and those read."""
    runs = [run for run in manifest["runs"].values() if run.get("stage") != 1]
    try:
        packed = {run["recipe"]["stage_two"]["source"]: run["source"]["tokens"] for run in runs}
    except (KeyError, TypeError) as error:
        raise UserError(f"a run's manifest is not whole ({error}); restore it or run the experiment again") from None
    body = "{layers} layers, {heads} heads, width {width}".format(**asdict(size.body))
    lines = {}
    for corpus, text in size.corpora.items():
        tokens = packed.get(size.text(corpus, size.stage_two).source)
        lines[corpus] = {
            "text": text.corpus,
            "tokens are": text.tokeniser,
            "model": body,
            "context": size.context,
            "packed to train on": "" if tokens is None else f"{tokens:,}",
            "read in stage two": f"{size.tokens:,}",
            "rate": f"{size.stage_two.lr:g}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("corpus")
