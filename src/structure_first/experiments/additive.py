"""A pinch of structure in front of a corpus: does it lower the loss that a fixed amount of text buys?

A cell is named `corpus / what comes first`, where a share is of stage two's tokens: `code / set 1 %`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from structure_first.cost import flops
from structure_first.experiments.text import CARRIED, FORMER_SIZES, HARMFUL, MAIN, SIZES, SOURCES, Size, percent
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Recipe

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of stage two's tokens
CONTROLLED = (0.01, 0.1)  # the claim's largest pinch, and a front in which stage one is surely learnt


def spent(recipe: Recipe) -> tuple[int, int]:
    """Tokens and FLOPs of a recipe's stage one; none where there is none."""
    if recipe.stage_one is None:
        return 0, 0
    first = recipe.alone.last
    made = first.make()
    return flops.tokens(first.stage, made), flops.spent(first.stage, made, recipe.shape(first, made))


def cells(
    scale: str, sizes: Mapping[str, Size] = SIZES, warmup: float = 1.0, init: float | None = None
) -> dict[str, Cell]:
    """What goes in front of each corpus, and how much of it is carried over.

    `init` is the deviation of fresh weights, if not the size's own; `warmup` is how many times as long the rate rises.
    """
    if scale not in sizes:
        return {}
    size, by_name = sizes[scale], {}
    second = replace(size.stage_two, warmup=round(warmup * size.stage_two.warmup))
    size = replace(size, body=replace(size.body, init=init or size.body.init), stage_two=second)
    for corpus in size.corpora:
        text = size.phase(corpus)

        def put(first: str, share: float, carried: str = "full", front: str | None = None) -> Recipe:
            named = f"{corpus} / {front or first} {percent(share)}"  # noqa: B023
            end = "" if carried in ("full", "all") else f" / {carried}"
            recipe = size.recipe(size.front(first, share), CARRIED[carried], text)  # noqa: B023
            factors = Factors(corpus, front or first, "full" if carried == "all" else carried, share)  # noqa: B023
            by_name[named + end] = Cell(recipe, factors)
            return recipe

        def start(front: str, recipe: Recipe, share: float | None = None) -> None:
            end = "" if share is None else f" {percent(share)}"
            by_name[f"{corpus} / {front}{end}"] = Cell(recipe, Factors(corpus, front, share=share))  # noqa: B023

        start("random init", size.recipe(None, None, text))
        mains = {share: put(SOURCES[MAIN], share, front=MAIN) for share in SHARES}
        start("wider init", size.drawn(2, text))
        for share in SHARES:
            put(SOURCES[MAIN], share, "mlp", MAIN)
        for share in CONTROLLED:
            main = mains[share]
            put(corpus, share, "all", "text")  # the same text, everything carried over
            for carried in ("full", "mlp"):
                put(f"shuffled:{SOURCES[MAIN]}", share, carried, f"shuffled {MAIN}")
            put("random", share, front="random tokens")
            for name in (each for each in SOURCES if each != MAIN):
                for carried in ("full", "attention", "mlp"):
                    put(SOURCES[name], share, carried, name)
            for carried in ("attention", "mlp permuted"):
                put(SOURCES[MAIN], share, carried, MAIN)
            for name in (MAIN, HARMFUL):
                for carried in ("permuted", "rotated"):
                    put(SOURCES[name], share, carried, name)
            steps = text.stage.steps + round(spent(main)[1] / size.flops(corpus))
            start("as many FLOPs", size.recipe(None, None, text.at(steps=steps)), share)
            warmup = min(text.stage.steps, text.stage.warmup + main.alone.last.stage.steps)
            start("longer warm-up", size.recipe(None, None, text.at(warmup=warmup)), share)
    return by_name


def tuning(scale: str, sizes: Mapping[str, Size] = SIZES) -> dict[str, Cell]:
    """The baseline at other learning rates, warm-ups and weight decays, and a pinch at each; and the baseline from
    GPT-2's scale of embeddings, and from other scales of weights.
    """
    if scale not in sizes:
        return {}
    size, by_name = sizes[scale], {}
    pinch, share = size.front(SOURCES[MAIN], CONTROLLED[0]), CONTROLLED[0]
    for corpus in size.corpora:
        text = size.phase(corpus)
        stage = text.stage

        def put(named: str, recipe: Recipe, factors: Factors) -> None:
            by_name[f"{factors.task} / {named}{factors.swept} {factors.amount:g}"] = Cell(recipe, factors)

        swept = [("rate", "lr", factor * stage.lr) for factor in (0.25, 0.5, 1, 2)]
        swept += [("warm-up", "warmup", round(factor * stage.warmup)) for factor in (0.25, 0.5, 2)]
        swept += [("decay", "weight_decay", factor * stage.weight_decay) for factor in (0, 0.1, 0.3, 3)]
        for name, setting, amount in swept:
            other, alone = text.at(**{setting: amount}), Factors(corpus, swept=name, amount=amount)
            put("", size.recipe(None, None, other), alone)
            for end, carried in {"": "full", " / mlp": "mlp"}.items():
                fronted = replace(alone, front=MAIN, carried=carried, share=share)
                put(f"{MAIN} {percent(share)}{end} / ", size.recipe(pinch, CARRIED[carried], other), fronted)
        narrow = replace(size.body, init_embedding=Body.init)
        put("", Recipe(None, None, text, narrow), Factors(corpus, swept="embeddings", amount=Body.init))
        for factor in (0.25, 0.5, 2.0):
            recipe = size.drawn(factor, text)
            put("", recipe, Factors(corpus, swept="weights", amount=recipe.body.init))
    return by_name


EXPERIMENT = Experiment(
    name="additive",
    asks="Does a pinch of structure in front of a fixed corpus lower the loss?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 6, "gpu": 3, "paper": 3},
    first_seed=506,  # the search for what goes across used those below
)
FORMER = replace(EXPERIMENT, name="additive_2x64", cells=partial(cells, sizes=FORMER_SIZES))
UNTUNED = replace(
    FORMER,
    name="additive_2x64_untuned",
    asks="What does a pinch seem to be worth to a baseline of which the rate alone was tuned?",
    # a much wider model's weights, and a fast start
    cells=partial(cells, sizes=FORMER_SIZES, warmup=0.25, init=Body.init),
    first_seed=503,
)
TUNING = Experiment(
    name="additive_2x64_tuning",
    asks="At which learning rate does the baseline learn most?",
    cells=partial(tuning, sizes=FORMER_SIZES),
    seeds={"smoke": 1, "laptop": 1},
    first_seed=590,  # of no seed above
)
