"""The published recipe on text: does structure in front do what the paper says, and what of it does the recipe do?"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import isclose

from structure_first.experiments.as_published import NARROW, Choice, Published, size, warmed
from structure_first.experiments.text import CARRIED, called, percent, tokens
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Recipe

SOURCES = ("union", "sort")  # beside Set
TUNED = (*SOURCES, "identity", "dyck", "dyck_shuffle", "eca", "nca")  # beside Set, on code, on the ladder's last rung
CONTROLS = {"shuffled:set": "shuffled set", "random": "random tokens"}  # on that rung of every corpus, as people say
PUBLISHED = "no warm-up"  # the first rung of the ladder: and GPT-2's start
RUNGS = (PUBLISHED, "warmed up", "wider start", "tuned")
# On the last rung, of the texts on which `published_tuning` has run, what it finds there.
CHOSEN = {"math": Choice(dropout=0.0)}
SHORTER = (25, 5)  # so many times, in the sweep of stage one's length: 100 and 500 updates
SHARES = (0.25, 0.5, 0.7, 0.85)  # of the text, of runs whose schedule ends there
RATES = (3e-4, 1e-3, 2e-3, 4e-3)  # at the narrow width
# What of it goes across, on every rung.
OF_SET = ("full", "permuted", "rescaled", "attention", "mlp", "mlp permuted", "attention permuted")
OF_NORMS = ("norms", "without norms")  # as published
SMALL = "learnt small"  # from the published start, and then brought to the size of the rung's


def at_rate(
    sized: Published,
    corpus: str,
    rung: str,
    ending: str = "",
    fronts: Iterable[tuple[str, str]] = (),
    small: Body | None = None,
) -> dict[str, Cell]:
    """Stage two on the corpus alone, after what tells what of Set it is, and after each of `fronts` and what of it goes
    across; with a `small` body also after a Set that was learnt from there.
    """
    text, by_name = sized.corpora[corpus], {}

    def put(front: str, carried: str | None = None, body: Body | None = None) -> None:
        first, rules = (None, None) if carried is None else (sized.front(front, corpus), CARRIED[carried])
        if front == corpus:  # whose tokens stay what they were
            rules = CARRIED["all"]
        front, across = {**CONTROLS, corpus: "text"}.get(front, front), SMALL if body else carried
        factors = Factors(corpus, front, across, width=sized.body.width, swept=rung, amount=text.stage.lr)
        by_name[called(factors) + ending] = Cell(Recipe(first, rules, text, sized.body, body), factors)

    put("random init")
    for front, carried in [*product(["set"], OF_SET), *fronts]:
        put(front, carried)
    if small:
        put("set", "rescaled", small)
    return by_name


def beside_set(corpus: str) -> Iterable[tuple[str, str]]:
    """What the tuned baseline meets beside Set, and what of it goes across; most of it on code."""
    fronts = product(TUNED, ("full", "attention", "mlp")) if corpus == "code" else product(SOURCES, ["full"])
    return [*fronts, *product([*CONTROLS, corpus], ["full"]), ("set", "rotated")]


def cells(scale: str) -> dict[str, Cell]:
    """The recipe as it was published; and the ladder from it to a tuned baseline, a rung at a time."""
    by_name: dict[str, Cell] = {}
    sized = size(scale)
    for corpus in sized.corpora:
        fronts = [*product(SOURCES, ["full"]), *product(["set"], OF_NORMS)]
        by_name |= at_rate(sized, corpus, PUBLISHED, fronts=fronts)
    for (name, cell), share in product(list(by_name.items()), SHARES):
        if cell.factors.front in ("random init", "set") and cell.factors.carried in (None, "full", "permuted"):
            less = cell.recipe.last.at(steps=round(share * cell.recipe.last.stage.steps))
            shorter = Cell(replace(cell.recipe, stage_two=less), replace(cell.factors, text=share))
            by_name[f"{name} / {percent(share)} of the text"] = shorter
    text = sized.corpora["code"]
    for times in SHORTER:
        updates = max(1, sized.stage_one.steps // times)
        first = sized.front("set", "code").at(steps=updates, evaluate_every=updates)
        share = round(first.stage.sequences * first.make().length / tokens(text), 3)
        factors = Factors("code", "set", "full", share, width=sized.body.width, swept=PUBLISHED, amount=text.stage.lr)
        by_name[f"code / set / {updates} updates"] = Cell(Recipe(first, CARRIED["full"], text, sized.body), factors)
    narrower = NARROW / sized.body.width
    for corpus, text in sized.corpora.items():  # language as published has a higher rate than the best here
        alone = replace(sized, corpora={corpus: text})
        rungs = [(RUNGS[1], replace(alone, corpora={corpus: warmed(text, narrower * rate)})) for rate in RATES]
        rungs += [(RUNGS[2], Choice(rate=rate).of(alone)) for rate in RATES]
        rates = [narrower * rate for rate in RATES if not isclose(narrower * rate, text.stage.lr)]
        rungs += [(PUBLISHED, replace(alone, corpora={corpus: text.at(lr=rate)})) for rate in rates]
        last = RUNGS[2], Choice().of(alone)
        if corpus in CHOSEN:
            rungs.append(last := (RUNGS[3], CHOSEN[corpus].of(alone)))
        for rung, at in rungs:
            ending = f" / {rung} at {at.corpora[corpus].stage.lr:g}"
            small = sized.body if rung in RUNGS[2:] else None
            by_name |= at_rate(at, corpus, rung, ending, beside_set(corpus) if (rung, at) == last else (), small)
    return by_name


EXPERIMENT = Experiment(
    name="published",
    asks="As published, what does structure in front do on text, and what of it is left beside a tuned baseline?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3, "paper": 3},
    first_seed=700,
    live=("code / random init", "code / set"),
    live_seeds=range(710, 711),
    live_part=0.25,
)
