"""Two stages at their smallest, copying and then a haystack, which chapter 2 trains before the reader's eyes."""

from dataclasses import replace

from structure_first.model.transfer import Transfer
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.training.stage import Stage


def cells(scale: str) -> dict[str, Recipe]:
    """Nothing in front, or copying, and of it what the paper compares; everything under two rules for new rows."""
    first_steps, steps = (40, 40) if scale == "smoke" else (1_000, 1_500)
    learn = Stage(lr=3e-3, warmup=40, schedule="constant", mastery=0.98, held_out=500)
    one = replace(learn, steps=first_steps, batch=64, evaluate_every=first_steps // 20)
    two = replace(learn, steps=steps, batch=128, evaluate_every=steps // 20)
    first = Phase("identity", one, {"length": 12, "vocab": 50}, tied=True)
    second = Phase("haystack", two, {"pairs": 5})
    return {
        "random init": Recipe(None, None, second),
        "attention only": Recipe(first, Transfer.only("attention"), second),
        "full, mean embeddings": Recipe(first, Transfer(embeddings="mean"), second),
        "full, resampled": Recipe(first, Transfer(embeddings="resample"), second),
    }


EXPERIMENT = Experiment(
    name="two_stages",
    asks="How much of what copying taught does recall need?",
    cells=cells,
    seeds={"smoke": 4, "laptop": 10, "gpu": 10, "paper": 10},
    first_seed=220,
    live=tuple(cells("smoke")),
    live_seeds=range(210, 214),
)
