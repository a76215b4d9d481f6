"""Chapter 03: when the seeds jump, and what the heads do that make them."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from einops import rearrange

from structure_first.analysis import attention
from structure_first.data.batch import Source
from structure_first.evidence.statistics import final, share_interval, steps_to
from structure_first.experiments.haystack import FASTER
from structure_first.model.transfer import Transfer, transfer
from structure_first.model.transformer import Transformer
from structure_first.runs.jobs import Job, initial_model, trained
from structure_first.runs.recipe import Experiment
from structure_first.training.devices import device, keep_freed_memory
from structure_first.training.loop import fit

BEFORE = 0.1  # of the accuracy that stays: so much above permuted weights a layer was there before
JUMPED = 0.9  # far above any guess: few seeds were seen to stay between the two
CLAIM = (
    "dyck",
    "identity attention",
    "set attention",
    "shuffled dyck",
    "random tokens",
    "longer training",
    "random init",
)
SIZE = (
    "dyck",
    "dyck permuted",
    "identity attention",
    "identity attention permuted",
    "tuned init",
    "wide tied init",
    "wide init",
    "random init",
)
ROWS = ("dyck", "dyck permuted", "dyck embeddings", "dyck mean", "dyck permuted mean", "random init")
RACE = tuple(f"{cell}{rate}" for cell in ("dyck", "tuned init", "random init") for rate in ("", FASTER))
CHANGED = {"k": "{:g} types", "p": "shallower, p {:g}", "updates": "stage one cut short"}  # by the search, in words
LOOKS = ("value → key", "query → key", "query → value")


def horizons(rows: pd.DataFrame) -> pd.Series:
    """For how many steps each cell could train: as many as random init, whose seeds stay to the end, or more."""
    last = rows[rows["stage"] == 2].groupby("cell")["step"].max()
    return last.clip(lower=last.get("random init"))


def guess(task: Source) -> float:
    """How often a guess among the values shown is right."""
    return float(np.mean([1 / n for n in range(1, int(task.settings["pairs"]) + 1)]))


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a cell: seeds, how many jumped and when, final accuracy, and how well its stage one was learnt."""
    times, last, learnt = steps_to(rows, JUMPED), final(rows), final(rows, "mastery")
    learnt = learnt.groupby("cell").median()
    lines = {}
    for cell, seeds in sorted(times.groupby("cell"), key=lambda each: -np.isfinite(each[1]).mean()):
        share, low, high = share_interval(int(np.isfinite(seeds).sum()), len(seeds))
        lines[cell] = {
            "seeds": len(seeds),
            "jumped": f"{share:.0%} [{low:.0%}, {high:.0%}]",
            "median step of the jump": "∞" if np.isinf(seeds.median()) else f"{seeds.median():,.0f}",
            "median accuracy": f"{last[cell].median():.1%}",
            "stage one learnt": f"{learnt[cell]:.1%}" if cell in learnt else "",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cell")


def has_jumped(rows: pd.DataFrame) -> pd.Series:
    """Of each seed whether it has jumped; index (cell, seed)."""
    return np.isfinite(steps_to(rows, JUMPED))


def beside_base(searched: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """The rows of the search, each cell by what it changes, and of what that is held against: its base setting, which
    `dyck` of the evidence has too, and random init.
    """
    held = evidence[evidence["cell"].isin(["dyck", "random init"])].replace({"cell": {"dyck": "base"}})
    both = pd.concat([searched, held[~held["cell"].isin(searched["cell"])]])
    swept = both[both["swept"].isin(CHANGED)].drop_duplicates("cell")
    return both.replace({"cell": {each.cell: CHANGED[each.swept].format(each.amount) for each in swept.itertuples()}})


def begun(tuned: pd.DataFrame) -> pd.DataFrame:
    """The rows of the tuning, each cell called by where it begins; GPT-2's is random init."""
    return tuned.assign(cell=tuned["front"])


def that_jump(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells of which some seed has jumped, and of random init."""
    some = has_jumped(rows).groupby("cell").any()
    return rows[rows["cell"].isin([*some.index[some], "random init"])]


def that_jump_said(rows: pd.DataFrame) -> str:
    """Of how many cells some seed has jumped, in words."""
    some = has_jumped(rows).groupby("cell").any()
    others = "" if some["random init"] else "; the others make none, and of them only GPT-2's is drawn"
    return f"**Of {len(some)} beginnings {some.sum()} make a seed jump{others}.**"


def counted(groups: Iterable[tuple[Hashable, pd.Series]]) -> str:
    """How many of the models of each group jumped, in words."""
    return ", ".join(f"*{name}* {jumped.sum()} of {len(jumped)}" for name, jumped in groups)


def jumped_said(rows: pd.DataFrame, cells: Sequence[str] | None = None) -> str:
    """How many seeds of each of the cells that have rows jumped, in words, most of them first."""
    groups = [(cell, jumped) for cell, jumped in has_jumped(rows).groupby("cell") if cells is None or cell in cells]
    return f"Seeds that jumped: {counted(sorted(groups, key=lambda group: -group[1].mean()))}."


# Inside


def jumped(experiment: Experiment, scale: str, rows: pd.DataFrame, out: Path) -> list[Job]:
    """Every seed that jumped after a stage one, a job each, the earliest first; if none did, the best alone."""
    cells = experiment.recipes(scale)
    warm = rows[[cell in cells and cells[cell].stage_one is not None for cell in rows["cell"]]]
    order = steps_to(warm, JUMPED).sort_values(kind="stable")
    seeds = list(order[np.isfinite(order)].index) or [final(warm).idxmax()]
    return [Job.of(cell, cells[cell], [int(seed)], out / experiment.name) for cell, seed in seeds]


def label(job: Job) -> str:
    return f"{job.name}, seed {job.seeds[0]}"


def states(job: Job) -> dict[str, tuple[Transformer, Source]]:
    """The model after stage one, then as stage two found and left it, each with the source of its tokens."""
    task, first = job.phase.make(), [one for replica in job.replicas if (one := replica.before)]
    return {
        "after stage one": (trained(first, job.folder), first[0].phase.make()),
        "as found": (initial_model(job), task),
        "as left": (trained(job.replicas, job.folder), task),
    }


class HeadStudy(NamedTuple):
    """What was measured inside some models; every frame has the columns `model`, `layer` and `head`."""

    scores: pd.DataFrame  # and state, kind, score
    ablations: pd.DataFrame  # and accuracy without the head, lost
    patches: pd.DataFrame  # and part, donor, accuracy with the donor's head, or all of the layer's


def study_heads(jobs: Sequence[Job], count: int = 400) -> HeadStudy:
    """Every head of every model: its kind, what is lost without it, what stays with an earlier one in its place."""
    scores, ablations, patches = {}, {}, {}
    for job in jobs:
        of = states(job)
        for state, (model, source) in of.items():
            scores[label(job), state] = attention.scores(model, source)
        (as_found, _), (as_left, task) = of["as found"], of["as left"]
        batch = attention.example(int(task.settings["pairs"]), count)
        ablated = attention.ablations(as_left, batch)
        ablations[label(job)] = ablated.assign(lost=attention.accuracy(as_left, batch).item() - ablated["accuracy"])
        donors = {
            "as found": as_found,
            "permuted": transfer(as_found, as_left.shape, Transfer(attention="permute"), job.seeds),
            "fresh": Transformer(as_left.shape, job.seeds),
        }
        for donor, earlier in donors.items():
            patches[label(job), donor] = attention.patches(as_left, earlier, batch)
    frames = (scores, ["model", "state"]), (ablations, ["model"]), (patches, ["model", "donor"])
    whole = (pd.concat(parts, names=names).reset_index(names) for parts, names in frames)
    return HeadStudy(*(each.reset_index(drop=True) for each in whole))


def carriers(of: HeadStudy) -> pd.DataFrame:
    """For each model and layer the head without which most is lost: what it does, and since when.

    `→` is from how stage two found the head to how it left it.
    """
    worst = of.ablations.loc[of.ablations.groupby(["model", "layer"], sort=False)["lost"].idxmax()]
    score = of.scores.set_index(["model", "layer", "head", "state", "kind"])["score"].sort_index()
    patched = of.patches.set_index(["model", "layer", "head", "part", "donor"])["accuracy"].sort_index()
    lines = {}
    for model, layer, head, lost in worst[["model", "layer", "head", "lost"]].itertuples(index=False):
        of_head, with_heads = score[model, layer, head], patched[model, layer]
        looks = max(LOOKS, key=lambda kind: of_head["as left", kind])
        lines[model, f"layer {layer}"] = {
            "head": head,
            "lost without it": f"{lost:.0%}",
            "looks": f"{looks}: {of_head['as found', looks]:.0%} → {of_head['as left', looks]:.0%}",
            "copies": f"{of_head['as found', 'copying']:.2f} → {of_head['as left', 'copying']:.2f}",
            "copied after stage one": f"{of_head['after stage one', 'copying']:.2f}",
            "accuracy with it as found": f"{with_heads[head, 'both', 'as found']:.0%}",
            "with it permuted": f"{with_heads[head, 'both', 'permuted']:.0%}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["model", "layer"])


def kinds_said(of: HeadStudy) -> str:
    """How much the head that ties most, and the one that matches most, does so, and did as found, in words."""
    told = []
    for kind in (LOOKS[0], LOOKS[2]):
        heads = of.scores[of.scores["kind"] == kind].pivot_table("score", ["model", "layer", "head"], "state")
        most = heads.loc[heads.groupby("model")["as left"].idxmax(), ["as left", "as found"]].median()
        told.append(f"{kind} with {most['as left']:.0%} of its attention (as found {most['as found']:.0%})")
    many = of.scores["model"].nunique()
    return (
        f"In the median of {many} model{'s' * (many > 1)}, the head that in the end ties most looks {told[0]}, the one "
        f"that matches most {told[1]}."
    )


def losses_said(of: HeadStudy) -> str:
    """What the costliest head of each layer is worth, and the next, in the median over the models, in words."""
    place = of.ablations.groupby(["model", "layer"])["lost"].rank(ascending=False, method="first")
    lost = of.ablations.assign(place=place).pivot_table("lost", "layer", "place", "median")
    told = (f"in layer {layer} {one[1]:.0%} (the next: {one[2]:.0%})" for layer, one in lost.iterrows())
    return f"Without the costliest head of a layer a model loses, in the median: {', '.join(told)}."


def whole_layers(of: HeadStudy) -> pd.DataFrame:
    """The patches of all heads of a layer at once."""
    return of.patches[of.patches["head"] == attention.ALL]


def origins_said(of: HeadStudy) -> str:
    """What whole layers put back leave, in the median over the models, in words."""
    medians = whole_layers(of).groupby(["layer", "part", "donor"], sort=False)["accuracy"].median().unstack("donor")
    said = [
        f"layer {layer}: "
        + ", ".join(f"{part} {line['as found']:.0%} ({line['permuted']:.0%})" for (_, part), line in parts.iterrows())
        for layer, parts in medians.groupby("layer")
    ]
    there = medians.index[medians["as found"] > medians["permuted"] + BEFORE]
    many, before = of.patches["model"].nunique(), ", ".join(f"layer {layer}, {part}" for layer, part in there)
    models = f"{many} model{'s' * (many > 1)}"
    return (
        f"**With all heads of a layer put back**, the median accuracy of {models} is (with permuted weights): "
        f"{'; '.join(said)}. More than {BEFORE:.0%} above these, so something of it was there before stage two: "
        f"{before or 'nothing'}."
    )


class Watched(NamedTuple):
    """A training that was looked at: the model's name, one sequence, its heads' attention by step, the accuracy too."""

    name: str
    tokens: list[int]
    layers: int
    maps: dict[int, list]  # for each head, layer after layer, where each place looks, per cent
    right: dict[int, float]


def turns_said(of: Watched) -> str:
    """Which layer came first to look where recall has to, in words."""
    begun, heads = [], len(next(iter(of.maps.values()))) // of.layers
    for layer, places in zip((0, of.layers - 1), attention.needed(of.tokens), strict=True):
        mine, enough = slice(heads * layer, heads * (layer + 1)), 50 * len(places)
        looks = {step: max(sum(head[q][k] for q, k in places) for head in maps[mine]) for step, maps in of.maps.items()}
        begun.append(next((step for step, look in looks.items() if look >= enough), np.inf))
    when = [f"from step {step:,} on" if np.isfinite(step) else "never" for step in begun]
    first, last = begun
    order = "neither is ahead" if first == last else f"the {'first' if first < last else 'last'} layer is ahead"
    return f"Half of its attention on the rings: a head of the first layer {when[0]}, of the last {when[1]}: {order}."


def watched(job: Job, rows: pd.DataFrame, pairs: int = 6, frames: int = 20) -> Watched:
    """Every head's attention on one example through the training of a model, which is trained again."""
    task = job.phase.make()
    tokens = attention.example(min(pairs, int(task.settings["pairs"]))).tokens[:, :-1]
    maps = {}

    def watch(step: int, model: Transformer) -> None:
        percent = (100 * attention.patterns(model, tokens)[:, 0, 0]).round().int()
        maps[step] = rearrange(percent, "layer head query key -> (layer head) query key").tolist()

    of_job = rows[(rows["cell"] == job.name) & (rows["seed"] == job.seeds[0]) & (rows["stage"] == job.stage)]
    stage = replace(job.phase.stage, evaluate_every=max(1, int(of_job["step"].max()) // frames))
    keep_freed_memory()
    model = initial_model(job).to(device(job.device))
    name = f"stage {job.stage}"  # it seeds the batches
    measurements = fit(model, task, stage, random_key=name, label=f"{label(job)}, again", watch=watch)
    right = {row["step"]: row["value"] for row in measurements if row["metric"] == "accuracy"}
    return Watched(label(job), tokens[0].tolist(), model.shape.layers, maps, right)
