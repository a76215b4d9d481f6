"""Chapters 05 and 06: what the published recipe does on text, and what of it is left beside a tuned baseline."""

from pathlib import Path

import pandas as pd

from structure_first.analysis.stored import RESULTS, of_today, ordered, over_seeds, sizes, with_factors
from structure_first.analysis.text import PAPER, by_share, gains, labels
from structure_first.cost import flops
from structure_first.evidence.statistics import needed, share_read, told
from structure_first.experiments.additive import spent
from structure_first.experiments.as_published import size
from structure_first.experiments.published import EXPERIMENT, PUBLISHED, RUNGS, SMALL
from structure_first.runs.recipe import Recipe

LEARNT_SMALL = f"set, {SMALL}"
TOLD = ("set", "set, permuted", "set, rescaled", LEARNT_SMALL)  # of every start, the last of the wider one
LEAD = "the first less the second"  # of two that are told
PLACES = {"where the context has it": "loss in sight", "elsewhere": "loss elsewhere"}  # the next token, and its loss
PARTS = {  # what of Set goes across, by its label; permuted: its numbers in random order
    "set": "all of Set",
    "set, permuted": "all permuted",
    "set, attention": "its attention",
    "set, attention permuted": "attention permuted",
    "set, mlp": "its MLPs",
    "set, mlp permuted": "MLPs permuted",
    "set, norms": "its norms",
    "set, without norms": "all but norms",
}
LESS = {  # one part and another
    "attention less MLPs": ("set, attention", "set, mlp"),
    "attention less its own numbers in random order": ("set, attention", "set, attention permuted"),
    "MLPs less their own numbers in random order": ("set, mlp", "set, mlp permuted"),
}
SHARES = {"accuracy": "tokens right", "problems": "problems solved"}  # of what is held out
SOLVED = {"random init": 0.412, "set": 0.425, "union": 0.427}  # of held-out problems (Jiang et al. 2026, DeepMind-Math)
ALIKE = ["task", "width", "swept", "amount", "seed"]  # what models that are compared have in common
MODEL = ["width", "cell", "seed"]
STEPS = ("as published", *RUNGS)  # of the ladder; `no warm-up`: as published but for another rate


def every_size(results: Path = RESULTS, metric: str = "loss") -> pd.DataFrame:
    """The `curves` of every size at which this was measured, the smallest first."""
    measured = [rows for rows in sizes(EXPERIMENT, results) if rows["metric"].eq(metric).any()]
    return pd.concat([curves(rows, metric) for rows in measured], ignore_index=True)


def curves(rows: pd.DataFrame, metric: str = "loss") -> pd.DataFrame:
    """Held-out loss (nats a token) of every model of one size at every evaluation: by corpus (`task`), rung of the
    ladder (`swept`) and rate (`amount`), with the share of the `text` that was read, and the `target`, what random init
    ends at; `label` says what is in front, for how many `updates`, and its share where that is not the recipe's own.
    Another `metric` is the loss on a part of the tokens, or a share of what is right, read as what is not.
    """
    whole = rows[(rows["stage"] == 2) & (rows["text"] == 1)]
    evaluations = whole[whole["metric"] == metric].sort_values(["cell", "seed", "step"])
    if metric in SHARES:
        evaluations = evaluations.assign(value=1 - evaluations["value"])
    evaluations = evaluations.rename(columns={"value": "loss"}).reset_index(drop=True)
    evaluations["label"] = labels(evaluations, ", ")
    evaluations["text"], evaluations["width"] = share_read(evaluations), evaluations["width"].astype(int)
    recipes = EXPERIMENT.recipes(rows["scale"].iloc[0])
    updates = {cell: each.alone.last.stage.steps if each.stage_one else 0 for cell, each in recipes.items()}
    evaluations["updates"] = evaluations["cell"].map(updates)
    targets = evaluations[evaluations["front"] == "random init"].drop_duplicates(["cell", "seed"], keep="last")
    kept = ["scale", "cell", *ALIKE, "front", "carried", "label", "updates", "step", "tokens", "text", "loss"]
    return evaluations[kept].join(targets.set_index(ALIKE)["loss"].rename("target"), on=ALIKE)


def ends(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every model: its gain over random init of the same seed and settings, and the share of the
    text at which its curve came down to where random init ends (infinite: never).
    """
    last = evaluations.drop_duplicates(MODEL, keep="last").set_index(MODEL)
    read = evaluations[evaluations["step"] > 0]
    crossed = {cell: needed(part, "text") for cell, part in read.groupby(MODEL[:2])}
    last["needed"] = pd.concat(crossed, names=MODEL) if crossed else None
    return last.assign(gain=last["target"] - last["loss"]).reset_index()


def published(last: pd.DataFrame) -> pd.DataFrame:
    """The models that have their corpus' published rate, and no warm-up of it."""
    by_scale = {scale: size(scale).corpora for scale in last["scale"].unique()}
    own = [by_scale[scale][task].stage.lr for scale, task in zip(last["scale"], last["task"], strict=True)]
    return last[last["swept"].eq(PUBLISHED) & last["amount"].eq(own)]


def shorter(results: Path = RESULTS) -> pd.DataFrame:
    """What was published, on shares of the text, each a run whose schedule ends there: `by_share` of what ran on some
    of them, and of random init of the same seeds.
    """
    every = [published(rows[rows["stage"] == 2]) for rows in sizes(EXPERIMENT, results)]
    models = pd.concat([by_share(rows, EXPERIMENT) for rows in every if len(rows)], ignore_index=True)
    models["label"] = labels(models, ", ")
    on_less = models.groupby(["task", "width", "label"])["text"].transform("min") < 1
    models = models[on_less | models["front"].eq("random init")]
    models = models[models.groupby(["task", "width", "seed"])["text"].transform("min") < 1]
    return models.astype({"width": int}).reset_index(drop=True)


def stopped_early(models: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """How much higher a run of `shorter` ends than the run of all of the text was after as much of it, a line a front
    and a share: median and interval.
    """
    alike = ["task", "width", "label", "seed", "text"]
    by_then = published(evaluations).set_index(alike)["loss"].rename("then")
    less = models[models["text"] < 1].join(by_then, on=alike)
    less = less.assign(higher=less["loss"] - less["then"], share=less["text"].map("{:.0%}".format), text=sized(less))
    table = over_seeds(less.assign(what="higher than on its way, nats"), "higher", ["text", "label", "share"], "what")
    return table.rename_axis(index={"label": "in front", "share": "of the text"})


def early(rows: pd.DataFrame, results: Path = RESULTS) -> pd.DataFrame:
    """How far what has a front is ahead of random init of the same seed at the same update, `lead` in nats a token: in
    live rows and in the stored ones of the same cells, scale and updates, `whose` they are, a line an evaluation after
    training began.
    """
    scale = rows["scale"].iloc[0]
    both = {"yours": rows}
    if (others := of_today(EXPERIMENT, results).get(scale)) is not None:
        last = rows.loc[rows["stage"] == 2, "step"].max()
        both["stored"] = others[others["cell"].isin(rows["cell"]) & (others["step"] <= last)]
    each = {whose: curves(with_factors(one, EXPERIMENT)) for whose, one in both.items()}
    evaluations = pd.concat(each, names=["whose"]).reset_index("whose")
    evaluations["lead"] = gains(evaluations, ["whose", *ALIKE, "step"])
    return evaluations[(evaluations["front"] != "random init") & (evaluations["step"] > 0)].reset_index(drop=True)


def early_said(evaluations: pd.DataFrame) -> str:
    """Where a front stands at the end of a live run, and where it stood lowest; and the stored seeds there."""
    lines = []
    for whose, part in evaluations.groupby("whose", sort=False):
        last, worst = part[part["step"] == part["step"].max()]["lead"], part.groupby("seed")["lead"].min()
        span = [told("{:+z.3f}", each) for each in (worst, last)]
        lines.append(
            f"- **{str(whose).capitalize()}** (seeds: {len(last)}): at worst {span[0]} nats a token, "
            f"after {part['step'].max():,} updates {span[1]}."
        )
    return "\n".join(lines)


def as_published(metric: str = "loss", results: Path = RESULTS) -> pd.DataFrame:
    """The `ends` of what was published, of all models measured so."""
    return published(ends(every_size(results, metric)))


def by_place(results: Path = RESULTS) -> pd.DataFrame:
    """The same of all fronts, apart for the tokens of each of `PLACES`; without a gain where random init was not
    measured so.
    """
    by_where = {where: as_published(metric, results) for where, metric in PLACES.items()}
    last = pd.concat(by_where, names=["where"]).reset_index("where")
    return last[last["front"] != "random init"]


def worth_by_place(last: pd.DataFrame) -> pd.DataFrame:
    """What each front is worth in either place."""
    table = over_seeds(last.assign(text=sized(last)), "gain", ["text", "label"], "where")
    return table.rename_axis(index={"label": "in front"})


def parts(last: pd.DataFrame) -> pd.DataFrame:
    """The `ends` by what of *set* goes across, at each `start` from which its attention and its MLPs both ran."""
    last = last.groupby(ALIKE[:4]).filter(lambda models: {"set, attention", "set, mlp"} <= set(models["label"]))
    last = ordered(last[last["label"].isin(PARTS)], "label", PARTS)
    last["start"] = sized(last) + ", " + last["swept"] + " at " + last["amount"].map("{:g}".format)
    return last.reset_index(drop=True)


def parts_told(last: pd.DataFrame) -> pd.DataFrame:
    """What each part is worth over random init, and one part less another, seed by seed: a line each."""
    lines = []
    for start, here in last.groupby("start", sort=False):
        gains, losses = (here.pivot(index="seed", columns="label", values=each) for each in ("gain", "loss"))
        worth = {name: gains[label] for label, name in PARTS.items() if label in gains}
        worth |= {name: losses[b] - losses[a] for name, (a, b) in LESS.items() if b in losses}
        for what, each in worth.items():
            lines.append({"start": start, "what": what, "nats": told("{:+z.3f}", each), "seeds": each.count()})
    return pd.DataFrame(lines, columns=["start", "what", "nats", "seeds"]).set_index(["start", "what"])


def sized(models: pd.DataFrame) -> pd.Series:
    """What models of one corpus and width are called."""
    return models["task"] + ", width " + models["width"].astype(str)


def answers(last: pd.DataFrame) -> pd.DataFrame:
    """For each corpus and front the final loss, the gain and the text that it does with: median and interval."""
    lines = [
        {
            "text": where,
            "in front": label,
            "seeds": len(part),
            "final loss": f"{part['loss'].median():.3f}",
            "gain, nats a token": "" if label == "random init" else told("{:+z.3f}", part["gain"]),
            "of the text, to its loss": "" if label == "random init" else told("{:.0%}", part["needed"]),
            "in the paper": PAPER[part["task"].iloc[0]] if label == "set" else "",
        }
        for (where, label), part in last.groupby([sized(last), "label"], sort=False)
    ]
    return pd.DataFrame(lines).set_index("text")


def solved(last: pd.DataFrame) -> pd.DataFrame:
    """Which share of the held-out problems is solved in the end, `as_published("problems")`, a line a front."""
    fronts = last.assign(share=1 - last["loss"], points=100 * last["gain"]).groupby("label", sort=False)
    table = fronts["share"].apply(lambda seeds: told("{:.1%}", seeds)).to_frame("problems solved")
    table["in the paper"] = [f"{SOLVED[label]:.1%}" if label in SOLVED else "" for label in table.index]
    table["over random init, points"] = fronts["points"].apply(lambda seeds: told("{:+z.1f}", seeds))
    return table.assign(seeds=fronts.size()).rename_axis("in front")


def climbed(last: pd.DataFrame) -> pd.DataFrame:
    """The `ends` by `step` of the ladder, of each the models of the rate at which random init ends lowest, of those at
    which a front has run; of the corpora and widths at which more than one step has run.
    """
    last = last.assign(step=last["swept"])
    last.loc[published(last).index, "step"] = STEPS[0]
    start = [*ALIKE[:2], "step"]
    at = [*start, "amount"]
    cold = last[last["front"] == "random init"].groupby(at, sort=False)["loss"].median().reset_index()
    fronts = last[last["front"] != "random init"].set_index(at).index
    cold["alone"] = ~cold.set_index(at).index.isin(fronts)
    best = cold.sort_values(["alone", "loss"]).drop_duplicates(start).set_index(at).index
    last = last[last.set_index(at).index.isin(best)]
    last = last.groupby(ALIKE[:2]).filter(lambda models: models["step"].nunique() > 1)
    last = last.assign(step=pd.Categorical(last["step"], STEPS)).sort_values([*ALIKE[:2], "step"])
    return last.astype({"step": str}).reset_index(drop=True)


def worth(ladder: pd.DataFrame) -> pd.DataFrame:
    """For each step of the ladder where random init ends, and what the fronts are worth there."""
    ladder = ladder[ladder["label"].isin(["random init", *TOLD])]
    step = ladder["step"] + " at " + ladder["amount"].map("{:g}".format)
    return over_random_init(ladder.assign(text=sized(ladder), step=step), ["text", "step"]).fillna("")


def over_random_init(last: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Where random init ends, and what each front gains over it: a line for what stands in the columns `keys`."""
    alone = last["front"] == "random init"
    ends = last[alone].groupby(keys, sort=False)["loss"].median().map("{:.3f}".format)
    return ends.to_frame("random init ends at").join(over_seeds(last[~alone], "gain", keys, "label"))


def pinch(recipe: Recipe) -> str:
    """How much is in front, in words."""
    first, text = recipe.alone.last.stage, recipe.last
    made, (tokens, cost) = text.make(), spent(recipe)
    read, whole = flops.tokens(text.stage, made), flops.spent(text.stage, made, recipe.shape(text, made))
    return (
        f"Stage one takes {first.steps:,} updates and {tokens / 1e6:.2g} M tokens, stage two {text.stage.steps:,} and "
        f"{read / 1e6:.2g} M. In front stands {tokens / read:.0%} of the text, for {cost / whole:.0%} of its FLOPs."
    )
