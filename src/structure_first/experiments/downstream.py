"""Does what a front gave to a text persist once the model is trained on, on a text of another kind?

Stage one is a recipe here: structure, or none, and then a text. All of the model goes on to stage two, a shorter one. A
cell is named `text, then another / what came before the text`; with `no text` before, stage two is all there is.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from structure_first.data.registry import ANSWERS
from structure_first.experiments import as_published
from structure_first.experiments.text import BEST, CARRIED, MAIN, SIZES, SOURCES, called, tokens
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe

FOLLOWS = {"code": ("language", "math"), "language": ("code", "math")}
SHARE = 0.2  # of the updates on the text before
PINCH = 0.01  # of the text's tokens, in front of it, where the baseline is tuned
RATES = (2, 1, 1 / 4, 1 / 16)  # times that of the text before, tried on models that had no structure
RATE = 1.0  # of these, the best


def shorter(text: Phase, corpus: str, rate: float = 1.0) -> Phase:
    """Stage two: as the text before, on another corpus in the same tokens."""
    before = text.stage
    steps, warmup, often = (round(SHARE * each) for each in (before.steps, before.warmup, before.evaluate_every))
    later = text.at(steps=max(2, steps), lr=rate * before.lr, warmup=warmup, evaluate_every=max(1, often))
    read = tokens(later)
    pool = max(30_000, read + read // 10)  # a twentieth is held out
    source = f"{corpus}/{text.source.partition('/')[2]}"
    return replace(later, source=source, settings={**text.settings, "tokens": pool})


def after(named: str, before: Iterable[Cell], later: Phase) -> dict[str, Cell]:
    """Stage two after each recipe, all of whose model goes on."""
    by_name = {}
    for recipe, factors in ((each.recipe, replace(each.factors, task=named)) for each in before):
        by_name[called(factors)] = Cell(Recipe(recipe, CARRIED["all"], later, recipe.body), factors)
    return by_name


def cells(scale: str) -> dict[str, Cell]:
    """After text as it was published: nothing in front of it, Set, Set's weights in random order; and after no text."""
    size = as_published.size(scale)
    by_name: dict[str, Cell] = {}
    for corpus, others in FOLLOWS.items():
        text, alone = size.corpora[corpus], Factors(width=size.body.width)
        before = [Cell(Recipe(None, None, text, size.body), alone)]
        for carried in ("full", "permuted"):
            recipe = Recipe(size.front("set", corpus), CARRIED[carried], text, size.body)
            before.append(Cell(recipe, replace(alone, front="set", carried=carried)))
        for other in others:
            name = size.corpora[other].source.partition("/")[0].removeprefix(ANSWERS)
            named, later = f"{corpus}, then {other}", shorter(text, name)
            by_name |= after(named, before, later)
            no_text = replace(alone, task=named, front="no text")
            by_name[called(no_text)] = Cell(Recipe(None, None, later, size.body), no_text)
    return by_name


def tuned(scale: str) -> dict[str, Cell]:
    """After text from a tuned start: nothing in front of it, a pinch, and the pinch's weights in random order."""
    size = SIZES[scale]
    by_name: dict[str, Cell] = {}
    for corpus, others in FOLLOWS.items():
        text, first = size.phase(corpus), size.front(SOURCES[MAIN], PINCH)
        before = [Cell(size.recipe(None, None, text))]
        for carried in (BEST[corpus], f"{BEST[corpus]} permuted"):
            factors = Factors(front=MAIN, carried=carried, share=PINCH)
            before.append(Cell(size.recipe(first, CARRIED[carried], text), factors))
        for other in others:
            by_name |= after(f"{corpus}, then {other}", before, shorter(text, size.corpora[other].corpus, RATE))
    return by_name


def tuning(scale: str) -> dict[str, Cell]:
    """Text from a tuned start with nothing in front of it, and what comes after it at each of the rates."""
    size = SIZES[scale]
    by_name: dict[str, Cell] = {}
    for corpus, others in FOLLOWS.items():
        before = size.recipe(None, None, size.phase(corpus))
        for other, share in product(others, RATES):
            later = shorter(size.phase(corpus), size.corpora[other].corpus, share)
            named, rate = f"{corpus}, then {other}", later.stage.lr
            recipe = Recipe(before, CARRIED["all"], later, size.body)
            by_name[f"{named} / rate {rate:g}"] = Cell(recipe, Factors(named, swept="rate", amount=rate))
    return by_name


EXPERIMENT = Experiment(
    name="downstream",
    asks="Does what a front gave to a text persist once the model is trained on, on another?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3, "paper": 3},
    first_seed=700,
)
TUNED = Experiment(
    name="downstream_tuned",
    asks="Does what a pinch does beside a tuned baseline persist once the model is trained on, on another text?",
    cells=tuned,
    seeds={"smoke": 1, "laptop": 6, "gpu": 3, "paper": 3},
    first_seed=506,
)
TUNING = Experiment(
    name="downstream_tuning",
    asks="At which rate does a model without structure in front learn most when it is trained on?",
    cells=tuning,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3, "paper": 3},
    first_seed=590,
)
