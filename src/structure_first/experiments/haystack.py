"""The haystack jump: does a warm-up on meaning-free sequences teach a tiny transformer to recall from its context?

At scales `gpu` and `paper` stage two is the paper's (Jiang et al. 2026, algorithmic tasks); at `laptop` it is what two
cores carry, and stage one what the search in this file found to work.
"""

from dataclasses import replace
from itertools import product
from typing import Any

from structure_first.experiments.starts import FULL, MEAN, PERMUTED, WIDE, Start, starts
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

GROUPS = ("attention", "mlp", "norms", "positions")

DYCK = {"k": 64, "length": 32}
TUNED = Start(WIDE, 4 * WIDE, tied=True, faster=4)  # the best of `tuning`
FASTER = f" at {TUNED.faster * Stage.lr:g}"  # how the cells that have its rate end


def stage_one(name: str, settings: dict, steps: int, mastery: float | None = 0.98) -> Phase:
    """Stage one. Its head shares its embeddings: what is then learnt of copying holds for any table of embeddings."""
    stage = Stage(
        steps=steps,
        batch=128,
        lr=3e-3,
        warmup=min(200, steps // 4),
        mastery=mastery,
        held_out=200,
        evaluate_every=max(1, min(250, steps // 4)),
    )
    return Phase(name, stage, settings, tied=True)


def stage_two(scale: str, more: int = 0) -> Phase:
    """The diagnostic, for `more` steps than the scale's own.

    At `laptop` the rate is constant, so that the time to the jump does not depend on where a schedule ends, and a seed
    that has solved the task stops.
    """
    if scale in ("gpu", "paper"):
        stage = Stage(steps=10_000 + more, held_out=4_000, mastery=0.995)  # a seed that has solved it may stop
        return Phase("haystack", stage, {"pairs": 30})
    pairs, steps = (12, 4_000) if scale == "laptop" else (3, 40)
    stage = Stage(
        steps=steps + more,
        batch=256 if scale == "laptop" else 32,
        warmup=min(200, steps // 4),
        schedule="constant",
        mastery=0.98,
        held_out=1_000 if scale == "laptop" else 100,
        evaluate_every=min(250, steps // 4),
    )
    return Phase("haystack", stage, {"pairs": pairs})


def stage_ones(scale: str) -> dict[str, Phase]:
    """Stage one on every source that goes before the diagnostic."""
    learnt = longest(scale)
    fits = {"smoke": 8, "laptop": 32}.get(scale, 64)  # positions for the longest haystack at this scale
    dyck, copied, quick = {**DYCK, "length": fits}, {"length": fits * 5 // 8, "vocab": 100}, min(learnt, 3_000)
    return {
        "dyck": stage_one("dyck", dyck, learnt),
        "identity": stage_one("identity", copied, quick),
        "set": stage_one("set", copied, quick),
        "shuffled dyck": stage_one("shuffled:dyck", dyck, learnt, mastery=None),
        "random tokens": stage_one("random", {"length": fits, "vocab": 2 * DYCK["k"]}, learnt, mastery=None),
    }


def longest(scale: str) -> int:
    """Updates that a stage one has at most."""
    return {"smoke": 40, "laptop": 4_000}.get(scale, 20_000)


def cell(recipe: Recipe, front: str = "random init", carried: str | None = None, **swept: Any) -> Cell:
    """A cell of the diagnostic."""
    return Cell(recipe, Factors("haystack", front, carried, **swept))


def cells(scale: str) -> dict[str, Cell]:
    """What goes before the diagnostic, and how much of it is carried over."""
    task, warm = stage_two(scale), stage_ones(scale)
    tied, faster = replace(task, tied=True), task.at(lr=TUNED.faster * task.stage.lr)
    mixed, rate = replace(PERMUTED, embeddings="mean"), dict[str, Any](swept="rate", amount=faster.stage.lr)
    by_name = {
        "random init": cell(Recipe(None, None, task)),
        "longer training": cell(Recipe(None, None, stage_two(scale, longest(scale))), "longer training"),
        "wide init": cell(Recipe(None, None, task, Body(init=WIDE)), "wide init"),
        "tied init": cell(Recipe(None, None, tied), "tied init"),
        "wide tied init": cell(Recipe(None, None, tied, Body(init=WIDE)), "wide tied init"),
        "tuned init": cell(TUNED._replace(faster=1).recipe(task), "tuned init"),
        "dyck": cell(Recipe(warm["dyck"], FULL, task), "dyck", "full"),
        "random init" + FASTER: cell(Recipe(None, None, faster), **rate),
        "tuned init" + FASTER: cell(TUNED.recipe(task), "tuned init", **rate),
        "dyck" + FASTER: cell(Recipe(warm["dyck"], FULL, faster), "dyck", "full", **rate),
        "dyck mean": cell(Recipe(warm["dyck"], MEAN, task), "dyck", "mean rows"),
        "dyck permuted mean": cell(Recipe(warm["dyck"], mixed, task), "permuted dyck", "mean rows"),
        "shuffled dyck mean": cell(Recipe(warm["shuffled dyck"], MEAN, task), "shuffled dyck", "mean rows"),
    }
    for name in ("dyck", "identity", "set"):
        if name != "dyck":
            by_name[f"{name} full"] = cell(Recipe(warm[name], FULL, task), name, "full")
            by_name[f"{name} mean"] = cell(Recipe(warm[name], MEAN, task), name, "mean rows")
        for group in ("attention", "mlp"):
            by_name[f"{name} {group}"] = cell(Recipe(warm[name], Transfer.only(group), task), name, group)
    copier = Recipe(warm["identity"], Transfer.only(attention="permute"), task)
    return by_name | {
        "identity attention permuted": cell(copier, "permuted identity", "attention"),
        "dyck embeddings": cell(Recipe(warm["dyck"], Transfer.only(embeddings="resample"), task), "dyck", "embeddings"),
        "dyck permuted": cell(Recipe(warm["dyck"], PERMUTED, task), "permuted dyck", "full"),
        "shuffled dyck": cell(Recipe(warm["shuffled dyck"], FULL, task), "shuffled dyck", "full"),
        "random tokens": cell(Recipe(warm["random tokens"], FULL, task), "random tokens", "full"),
    }


def search(scale: str) -> dict[str, Cell]:
    """When does Dyck transfer? One change at a time from a base setting, and its groups alone and left out.

    Random init at the other rate and batch tells whether these help Dyck or any model.
    """
    if scale == "paper":
        return published_search()
    if scale != "laptop":
        return {}
    task, by_name = stage_two(scale), {}
    base = stage_one("dyck", DYCK, 4_000)

    def put(name: str, first: Phase, rules: Transfer = FULL, carried: str = "full", second=task, **swept) -> None:
        by_name[name] = cell(Recipe(first, rules, second), "dyck", carried, **swept)

    put("base", base)
    put("untied", replace(base, tied=False), swept="untied")
    for name, value in (("k", 8), ("k", 16), ("k", 128), ("length", 64), ("p", 0.3)):
        put(f"{name} {value}", replace(base, settings={**DYCK, name: value}), swept=name, amount=value)
    for rule in ("mean", "fresh"):
        put(f"embeddings {rule}", base, Transfer(embeddings=rule), ROWS[rule])
    put("less mastery", stage_one("dyck", DYCK, 1_500), swept="updates", amount=1_500)
    for name, settings in {"rate 3e-3": task.at(lr=3e-3), "batch 64": task.at(batch=64)}.items():
        put(f"stage two: {name}", base, second=settings, swept=name)
        by_name[f"random init: {name}"] = cell(Recipe(None, None, settings), swept=name)
    for group in GROUPS:
        put(f"only {group}", base, Transfer.only(group, embeddings="resample"), group)
        put(f"without {group}", base, replace(FULL, **{group: "fresh"}), f"without {group}")
    return by_name


# Stage one as the authors' code has it by default (Jiang et al. 2026, repository), but for the rate and the updates: it
# trains at 5e-5 for up to a million of them.
AUTHORS = Phase(
    "dyck",
    Stage(20_000, 64, 1e-3, warmup=0, schedule="constant", weight_decay=0.01, evaluate_every=1_000),
    {"k": 16, "length": 128, "p": 0.5},
    tied=True,
    dropout=0.1,
)


def published_search() -> dict[str, Cell]:
    """From which stage one on Dyck words does recall jump when every new row is the mean of the old ones?

    One change at a time, and a third of the diagnostic's updates. From the first, other rows too: does it tell?
    """
    task = stage_two("paper").at(steps=3_500, evaluate_every=250)
    by_name = {"random init": cell(Recipe(None, None, task))}

    def put(name: str, first: Phase, rules: Transfer = MEAN, carried: str = "mean rows", **swept) -> None:
        by_name[name] = cell(Recipe(first, rules, task), "dyck", carried, **{"swept": name, **swept})

    put("base", AUTHORS)
    put("base / resampled rows", AUTHORS, FULL, "resampled rows")
    put("base / fresh rows", AUTHORS, Transfer(), "fresh rows")
    for steps in (2_000, 80_000):
        put(f"{steps:,} updates", AUTHORS.at(steps=steps))
    for lr in (3e-4, 3e-3):
        put(f"lr {lr:g}", AUTHORS.at(lr=lr))
    put("lr 5e-05, 200,000 updates", AUTHORS.at(lr=5e-5, steps=200_000, evaluate_every=5_000))
    put("no dropout", replace(AUTHORS, dropout=0.0))
    put("untied", replace(AUTHORS, tied=False))
    for name, value in (("k", 8), ("k", 64), ("length", 64)):
        put(f"{name} {value}", replace(AUTHORS, settings={**AUTHORS.settings, name: value}), swept=name, amount=value)
    put("curriculum", AUTHORS.at(curriculum=(8, 16, 32, 64)))
    return by_name


# Their *everything* and their *attention alone* change two things at once: what goes across, and what the new rows are.
ACROSS = {"nothing": (), "attention": ("attention",), "everything": GROUPS}
ROWS = {"fresh": "fresh rows", "mean": "mean rows", "resample": "resampled rows", "match": "partly kept rows"}


def rules_apart(scale: str) -> dict[str, Cell]:
    """Every part that goes across with every rule for the rows of embeddings and head, as a table of two factors."""
    task, warm = stage_two(scale), stage_ones(scale)
    by_name = {"random init": cell(Recipe(None, None, task))}
    for name, across, rule in product(("dyck", "identity", "set"), ACROSS, ROWS):
        if (across, rule) != ("nothing", "fresh"):
            recipe = Recipe(warm[name], Transfer.only(*ACROSS[across], embeddings=rule), task)
            by_name[f"{name} / {across} / {ROWS[rule]}"] = cell(recipe, name, across, swept=ROWS[rule])
    return by_name


def tuning(scale: str) -> dict[str, Cell]:
    """The best start without a stage one: the widths first, then the rate."""
    task = stage_two(scale)
    gpt2 = Start(Body.init, Body.init, tied=False).recipe(task)
    by_name = {
        name: cell(recipe, "random init" if recipe == gpt2 else name)
        for name, recipe in starts(task, (Body.init, WIDE, 2 * WIDE), (Body.init, WIDE, 4 * WIDE, 8 * WIDE)).items()
    }
    for rate in (5e-4, 2e-3, 4e-3, 8e-3):
        best = TUNED._replace(faster=rate / task.stage.lr)
        by_name[f"the best of these / rate {rate:g}"] = cell(best.recipe(task), f"best / rate {rate:g}")
    return by_name


EXPERIMENT = Experiment(
    name="haystack",
    asks="Does a warm-up on Dyck words make context recall jump?",
    cells=cells,
    seeds={"smoke": 2, "laptop": 10, "gpu": 10, "paper": 10},
    first_seed=100,
    live=("random init", "dyck", "identity attention"),
    live_seeds=range(200, 202),
)
SEARCH = Experiment(
    name="haystack_search",
    asks="Under which settings does Dyck make context recall jump?",
    cells=search,
    seeds={"smoke": 1, "laptop": 4, "gpu": 4, "paper": 4},
)
TUNING = Experiment(
    name="haystack_tuning",
    asks="From which initialisation does the diagnostic alone learn most?",
    cells=tuning,
    seeds={"smoke": 1, "laptop": 2, "gpu": 2, "paper": 2},
    first_seed=50,  # of no seed above
)
RULES = Experiment(
    name="haystack_rules",
    asks="Is it what goes across that makes recall jump, or what the new embedding rows are?",
    cells=rules_apart,
    seeds={"smoke": 1, "laptop": 6, "gpu": 3, "paper": 3},
    first_seed=800,
)
