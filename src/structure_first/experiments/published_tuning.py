"""What the published recipe's baseline wants on each text: first weights and rate together, then warm-up, decay and
dropout from the start of `published`'s last rung; sought on random init alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from structure_first.experiments.as_published import BEST, NARROW, WIDER, size, warmed, wider
from structure_first.experiments.text import called
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe

TIMES = (2.0, WIDER, 4.5)  # GPT-2's first weights, of the embeddings too
RATES = (BEST / 2, BEST, 2 * BEST)  # at the narrow width, warmed up
DECAY = 0.1  # ten times the published one


def choices(text: Phase, body: Body) -> Iterator[tuple[str, Phase, Body]]:
    """What is tried, in words but for the rate, and what is trained so."""
    narrower = min(1.0, NARROW / body.width)
    for times, rate in product(TIMES, RATES):
        wide = wider(body, narrower, times)
        yield f"weights {wide.init:.3g}", warmed(text, narrower * rate), wide
    best, wide = warmed(text, narrower * BEST), wider(body, narrower)  # where the ladder's last step is
    longer, start = 2 * best.stage.warmup, f"weights {wide.init:.3g}, "
    yield f"{start}warm-up {longer}", best.at(warmup=longer), wide
    yield f"{start}decay {DECAY:g}", best.at(weight_decay=DECAY), wide
    yield f"{start}no dropout", replace(best, dropout=0.0), wide


def cells(scale: str) -> dict[str, Cell]:
    """Each text alone, from every choice."""
    by_name: dict[str, Cell] = {}
    sized = size(scale)
    for corpus, text in sized.corpora.items():
        for choice, phase, body in choices(text, sized.body):
            factors = Factors(corpus, width=body.width, swept=choice, amount=phase.stage.lr)
            name = f"{called(factors)} / {choice.replace(', ', ' / ')} at {factors.amount:g}"
            by_name[name] = Cell(Recipe(None, None, phase, body), factors)
    return by_name


EXPERIMENT = Experiment(
    name="published_tuning",
    asks="Which first weights, rate, warm-up, decay and dropout does the published recipe's baseline want?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 1, "gpu": 1, "paper": 1},
    first_seed=790,  # of no seed of `published`
)
