"""What the published recipe's baseline wants on each text: first weights and rate together, then warm-up, decay and
dropout from the wider start of `published`; sought on random init alone.
"""

from itertools import product

from structure_first.experiments.as_published import BEST, WARMUP, WIDER, Choice, size
from structure_first.experiments.text import called
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Recipe

TIMES = (2.0, WIDER, 4.5)  # GPT-2's first weights
RATES = (BEST / 2, BEST, 2 * BEST)
BESIDE = {f"warm-up {2 * WARMUP}": Choice(longer=2), "decay 0.1": Choice(decay=0.1), "no dropout": Choice(dropout=0)}
CHOICES = [*(("", Choice(times, rate)) for times, rate in product(TIMES, RATES)), *BESIDE.items()]


def first_weights(body: Body) -> str:
    """How wide they are, in words."""
    return f"weights {body.init:.3g}"


def cells(scale: str) -> dict[str, Cell]:
    """Each text alone, from every choice."""
    by_name, sized = dict[str, Cell](), size(scale)
    for what, choice in CHOICES:
        chosen = choice.of(sized)
        start = [first_weights(chosen.body), *filter(None, [what])]
        for corpus, text in chosen.corpora.items():
            factors = Factors(corpus, width=chosen.body.width, swept=", ".join(start), amount=text.stage.lr)
            name = f"{' / '.join([called(factors), *start])} at {factors.amount:g}"
            by_name[name] = Cell(Recipe(None, None, text, chosen.body), factors)
    return by_name


EXPERIMENT = Experiment(
    name="published_tuning",
    asks="Which first weights, rate, warm-up, decay and dropout does the published recipe's baseline want?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 1, "gpu": 1, "paper": 1},
    first_seed=790,  # of no seed of `published`
)
