"""The haystack jump: does a warm-up on meaning-free sequences teach a tiny transformer to recall from its context?"""

from dataclasses import replace

from structure_first.experiments.recipe import Experiment, Phase, Recipe
from structure_first.model.transfer import Transfer
from structure_first.training.stage import Stage

FULL = Transfer()
MEAN = Transfer(embeddings="mean")  # the paper's rule for the diagnostics
GROUPS = ("attention", "mlp", "norms", "positions")


def first(name: str, settings: dict, steps: int, mastery: float | None = 0.985, batch: int = 128) -> Phase:
    """Stage one on a source until it is mastered."""
    stage = Stage(
        steps=steps,
        batch=batch,
        rate=3e-3,
        warmup=min(200, steps // 5),
        mastery=mastery,
        held_out=200,
        evaluate_every=max(1, min(250, steps // 4)),
    )
    return Phase(name, stage, settings)


def second(pairs: int, steps: int, batch: int = 256, rate: float = 1e-3) -> Phase:
    """The diagnostic, at a constant rate: the time to the jump should not depend on where a schedule ends."""
    stage = Stage(
        steps=steps,
        batch=batch,
        rate=rate,
        warmup=min(200, steps // 5),
        schedule="constant",
        mastery=0.99,
        evaluate_every=max(1, min(250, steps // 4)),
    )
    return Phase("haystack", stage, {"pairs": pairs})


def search(scale: str) -> dict[str, Recipe]:
    """When does Dyck transfer? One change at a time from a base setting, and the base's parts alone and left out."""
    task = second(12, 4000)
    dyck = {"k": 64, "length": 32}
    base = first("dyck", dyck, 4000)
    cells = {"base": Recipe(base, FULL, task)}
    for k in (8, 16, 32, 128, 256):
        cells[f"k {k}"] = Recipe(first("dyck", {**dyck, "k": k}, 4000), FULL, task)
    for length in (64,):
        cells[f"length {length}"] = Recipe(first("dyck", {**dyck, "length": length}, 4000), FULL, task)
    for mastery in (0.8, 0.9):
        cells[f"mastery {mastery:.0%}"] = Recipe(first("dyck", dyck, 4000, mastery), FULL, task)
    for rule in ("mean", "resample"):
        cells[f"embeddings {rule}"] = Recipe(base, Transfer(embeddings=rule), task)
    for group in GROUPS:
        cells[f"only {group}"] = Recipe(base, Transfer.only(group), task)
        cells[f"without {group}"] = Recipe(base, replace(FULL, **{group: "fresh"}), task)
    return cells


SEARCH = Experiment(
    "haystack_search", "Under which settings does Dyck make context recall jump?", search, dict.fromkeys(("laptop",), 4)
)
