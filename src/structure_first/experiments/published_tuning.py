"""What the published recipe's baseline wants on each text: first weights and rate together, then warm-up, decay and
dropout from the start of `published`'s last rung; sought on random init alone.
"""

from itertools import product

from structure_first.experiments.as_published import BEST, WARMUP, WIDER, Choice, size
from structure_first.experiments.text import called
from structure_first.runs.recipe import Cell, Experiment, Factors, Recipe

TIMES = (2.0, WIDER, 4.5)  # GPT-2's first weights
RATES = (BEST / 2, BEST, 2 * BEST)
BESIDE = {f"warm-up {2 * WARMUP}": Choice(longer=2), "decay 0.1": Choice(decay=0.1), "no dropout": Choice(dropout=0)}
CHOICES = {"": [Choice(times, rate) for times, rate in product(TIMES, RATES)], **{k: [v] for k, v in BESIDE.items()}}


def cells(scale: str) -> dict[str, Cell]:
    """Each text alone, from every choice."""
    by_name: dict[str, Cell] = {}
    for what, choice in ((what, choice) for what, choices in CHOICES.items() for choice in choices):
        chosen = choice.of(size(scale))
        for corpus, text in chosen.corpora.items():
            start = ", ".join(filter(None, (f"weights {chosen.body.init:.3g}", what)))
            factors = Factors(corpus, width=chosen.body.width, swept=start, amount=text.stage.lr)
            name = f"{called(factors)} / {start.replace(', ', ' / ')} at {factors.amount:g}"
            by_name[name] = Cell(Recipe(None, None, text, chosen.body), factors)
    return by_name


EXPERIMENT = Experiment(
    name="published_tuning",
    asks="Which first weights, rate, warm-up, decay and dropout does the published recipe's baseline want?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 1, "gpu": 1, "paper": 1},
    first_seed=790,  # of no seed of `published`
)
