"""A pinch of structure in front of a corpus: does it lower the loss that a fixed amount of text buys?

A cell is named `corpus / what comes first`, where a share is of stage two's tokens: `code / set 1 %`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product

from structure_first.cost import flops
from structure_first.experiments.text import CARRIED, FORMER_SIZES, HARMFUL, MAIN, SIZES, SOURCES, Size, called
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Recipe

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of stage two's tokens
CONTROLLED = (0.01, 0.1)  # a pinch in which stage one is learnt, and a front in which it surely is


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
    size = sizes[scale]
    second = replace(size.stage_two, warmup=round(warmup * size.stage_two.warmup))
    size = replace(size, body=replace(size.body, init=init or size.body.init), stage_two=second)
    return {called(each.factors): each for corpus in size.corpora for each in of_corpus(size, corpus)}


def of_corpus(size: Size, corpus: str) -> Iterator[Cell]:
    """The corpus alone, and after each front."""
    text, main = size.phase(corpus), SOURCES[MAIN]
    fronts = {**SOURCES, f"shuffled {MAIN}": f"shuffled:{main}", "random tokens": "random", "text": corpus}

    def put(front: str, share: float, carried: str = "full") -> Cell:
        rules = CARRIED["all" if front == "text" else carried]  # of the same text, everything is carried over
        recipe = size.recipe(size.front(fronts[front], share), rules, text)
        return Cell(recipe, Factors(corpus, front, carried, share))

    yield Cell(size.recipe(None, None, text), Factors(corpus))
    yield from (put(MAIN, share) for share in SHARES)
    yield Cell(size.drawn(2, text), Factors(corpus, "wider init"))
    yield from (put(MAIN, share, "mlp") for share in SHARES)
    for share in CONTROLLED:
        yield put("text", share)
        for carried in ("full", "mlp"):
            yield put(f"shuffled {MAIN}", share, carried)
        yield put("random tokens", share)
        for front, carried in product([each for each in SOURCES if each != MAIN], ("full", "attention", "mlp")):
            yield put(front, share, carried)
        for carried in ("attention", "mlp permuted"):
            yield put(MAIN, share, carried)
        for front, carried in product((MAIN, HARMFUL), ("permuted", "rotated")):
            yield put(front, share, carried)
        first = put(MAIN, share).recipe
        steps = text.stage.steps + round(spent(first)[1] / size.flops(corpus))
        yield Cell(size.recipe(None, None, text.at(steps=steps)), Factors(corpus, "as many FLOPs", share=share))
        warmup = min(text.stage.steps, text.stage.warmup + first.alone.last.stage.steps)
        yield Cell(size.recipe(None, None, text.at(warmup=warmup)), Factors(corpus, "longer warm-up", share=share))


def tuning(scale: str, sizes: Mapping[str, Size] = SIZES) -> dict[str, Cell]:
    """The baseline at other learning rates, warm-ups and weight decays, from GPT-2's scale of embeddings, and from
    other scales of weights.
    """
    if scale not in sizes:
        return {}
    size, cells = sizes[scale], []
    for corpus in size.corpora:
        text = size.phase(corpus)
        stage = text.stage
        swept = [("rate", "lr", factor * stage.lr) for factor in (0.25, 0.5, 1, 2)]
        swept += [("warm-up", "warmup", round(factor * stage.warmup)) for factor in (0.25, 0.5, 2)]
        swept += [("decay", "weight_decay", factor * stage.weight_decay) for factor in (0, 0.1, 0.3, 3)]
        for name, setting, amount in swept:
            recipe = size.recipe(None, None, text.at(**{setting: amount}))
            cells.append(Cell(recipe, Factors(corpus, swept=name, amount=amount)))
        narrow = Recipe(None, None, text, replace(size.body, init_embedding=Body.init))
        cells.append(Cell(narrow, Factors(corpus, swept="embeddings", amount=Body.init)))
        for factor in (0.25, 0.5, 2.0):
            recipe = size.drawn(factor, text)
            cells.append(Cell(recipe, Factors(corpus, swept="weights", amount=recipe.body.init)))

    return {f"{each.factors.task} / {each.factors.swept} {each.factors.amount:g}": each for each in cells}


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
