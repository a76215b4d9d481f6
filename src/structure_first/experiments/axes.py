"""Where structure begins to count: the published recipe on code at other widths, contexts and lengths of the text, from
the published start and, in an experiment of its own, from the best start that was sought.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from structure_first.experiments.as_published import Choice, Published, size
from structure_first.experiments.text import CARRIED, called, tokens
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

CORPUS = "code"
AXES = {"width": (0.5, 2.0), "context": (0.5, 2.0), "updates": (4.0,)}  # times what `published` has
FRONTS = (("random init", None), ("set", "full"), ("set", "permuted"))  # and what of it goes across


def middle(scale: str) -> dict[str, int]:
    """What `published` has on each axis."""
    base = size(scale)
    text = base.corpora[CORPUS]
    return {"width": base.body.width, "context": int(text.settings["context"] or 0), "updates": text.stage.steps}


def points(scale: str) -> Iterator[tuple[str, int, Published]]:
    """Each axis, each amount on it, and the recipe there. What is swept is alone, but for what goes with it: as many
    tokens an update, heads as wide, and the rate that is theirs for the width.
    """
    base, here = size(scale), middle(scale)
    text, sized = base.corpora[CORPUS], base.body
    stage = text.stage
    for axis, factor in ((axis, factor) for axis, factors in AXES.items() for factor in factors):
        amount, body = round(factor * here[axis]), sized
        if axis == "width":
            body, phase = replace(sized, width=amount, heads=round(factor * sized.heads)), text.at(lr=stage.lr / factor)
        elif axis == "context":
            phase = read(text, amount, replace(stage, batch=round(stage.batch / factor)))
        else:
            every = max(1, round(factor * stage.evaluate_every))
            phase = read(text, here["context"], replace(stage, steps=amount, evaluate_every=every))
        yield axis, amount, replace(base, body=body, corpora={CORPUS: phase})


def read(text: Phase, context: int, stage: Stage) -> Phase:
    """The text in other windows or for other updates, of a larger pool where it would be read twice."""
    other = replace(text, stage=stage, settings={**text.settings, "context": context})
    pool = max(int(text.settings["tokens"] or 0), tokens(other) * 53 // 50)
    return replace(other, settings={**other.settings, "tokens": pool})


def cells(scale: str, better: bool = False) -> dict[str, Cell]:
    """At each point what nothing in front, *set* and its numbers in random order come to, each from the better start
    or from the published one. The paper's size is a point itself.
    """
    by_name: dict[str, Cell] = {}
    for (axis, amount, at), (front, carried) in product(points(scale) if scale != "paper" else (), FRONTS):
        sized = Choice().of(at) if better else at
        first, rules = (sized.front(front, CORPUS), CARRIED[carried]) if carried else (None, None)
        factors = Factors(CORPUS, front, carried, width=sized.body.width, swept=axis, amount=amount)
        recipe = Recipe(first, rules, sized.corpora[CORPUS], sized.body)
        by_name[f"{called(factors)} / {axis} {amount}"] = Cell(recipe, factors)
    return by_name


EXPERIMENT = Experiment(
    name="axes",
    asks="As published, along which axis does structure begin to count: width, context or updates?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3},
    first_seed=700,  # the data of `published`, seed by seed
)
TUNED = Experiment(
    name="axes_tuned",
    asks="And from wider first weights, with a rate that is warmed up?",
    cells=lambda scale: cells(scale, better=True),
    seeds={"smoke": 1, "laptop": 3, "gpu": 3},
    first_seed=700,
)
