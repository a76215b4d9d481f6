"""What each structure teaches: every procedural source x every diagnostic x what is carried over, with controls.

A cell is named `diagnostic / source / transfer`. At scales `gpu` and `paper` the sizes are the paper's (Jiang et al.
2026, algorithmic tasks); at `laptop` they are such that random initialisation solves no diagnostic in the steps it
has, and two cores need a night for all of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from structure_first.experiments.starts import FULL, MEAN, PERMUTED, WIDE, Start, starts
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

TRANSFERS = {"full": FULL, "mean rows": MEAN, "attention": Transfer.only("attention"), "mlp": Transfer.only("mlp")}
BRACKETS = (8, 16, 64)  # types, of each language
# Of the starts in `LAPTOP.tuned`, the one from which set, stack and dyck 64 were learnt best (seeds 390 and 391).
FIRST = Body(init=WIDE, init_embedding=Body.init)
# The attention of one source with the MLPs of another. What the rest is the paper does not say: here it is afresh.
COMPOSED = Transfer.only("attention", mlp="from(eca)")
READ = 20  # tokens, in front of sums: what the authors' code has; of 64 so small a model learns a set to a third
ARITHMETIC = ("addition", "reversed_addition")
DRAWS = {  # of a sum: as the other experiments have it, then each difference of the authors' code alone, then both
    "zero-padded": {},
    "no leading zeros": {"leading_zeros": 0},
    "loss one token late": {"shifted": 1},
    "as published": {"leading_zeros": 0, "shifted": 1},
}
THEIR_STACK = "stack, as published"  # whose pushes are forced at one entry, not two
STATED = (  # by the paper, and their controls: what is in front, and what of it goes across
    ("set", "attention"),
    ("set", "mean rows"),
    ("eca", "mean rows"),
    ("stack", "mean rows"),
    (THEIR_STACK, "mean rows"),
    ("shuffled eca", "mean rows"),
)
SAME = "same start"  # how cells end in which all goes across from a stage one that began as its diagnostic does


@dataclass(frozen=True)
class Size:
    """How large everything is at a scale."""

    read: int  # tokens that a transform reads, or operations of a stack
    word: int  # brackets of a word
    automaton: Mapping[str, int]
    stage_one: Stage
    stage_two: Stage
    tasks: Mapping[str, Mapping[str, int]]
    controlled: tuple[str, ...]  # the sources that are shuffled, and whose weights are permuted
    tuned: Mapping[str, Start] = field(default_factory=dict)  # the best of `tuning` for each diagnostic


LAPTOP = Size(
    read=12,
    word=32,
    automaton={"length": 40, "width": 8},
    stage_one=Stage(steps=4_000, batch=64, lr=3e-3, warmup=200, mastery=0.98, held_out=200, evaluate_every=250),
    stage_two=Stage(
        steps=2_000, batch=64, warmup=200, schedule="constant", mastery=0.98, held_out=500, evaluate_every=200
    ),
    tasks={
        "haystack": {"pairs": 8},
        "addition": {"digits": 3},
        "reversed_addition": {"digits": 5},
        "multiplication": {"digits": 2},
        "sorting": {"length": 10, "vocab": 50},
    },
    controlled=("dyck 16", "dyck 64", "dyck_shuffle 64", "set"),
    tuned={
        "haystack": Start(WIDE, 4 * WIDE, tied=True, faster=4),
        "addition": Start(WIDE, Body.init, tied=False, faster=4),
        "reversed_addition": Start(WIDE, Body.init, tied=False, faster=4),
        "multiplication": Start(WIDE, WIDE, tied=True, faster=4),
        "sorting": Start(Body.init, WIDE, tied=True, faster=4),
    },
)
SMOKE = replace(
    LAPTOP,
    read=4,
    word=8,
    automaton={"length": 8, "width": 4},
    stage_one=replace(LAPTOP.stage_one, steps=20, batch=16, warmup=5, held_out=50, evaluate_every=10),
    stage_two=replace(LAPTOP.stage_two, steps=20, batch=16, warmup=5, held_out=50, evaluate_every=5),
    tasks={
        "haystack": {"pairs": 2},
        "addition": {"digits": 1},
        "reversed_addition": {"digits": 1},
        "multiplication": {"digits": 1},
        "sorting": {"length": 3, "vocab": 10},
    },
)
PAPER = Size(
    read=64,
    word=128,
    automaton={"length": 128, "width": 16},
    stage_one=replace(LAPTOP.stage_one, steps=20_000, held_out=1_000, evaluate_every=1_000),
    stage_two=Stage(held_out=4_000, evaluate_every=500),
    tasks={name: {} for name in LAPTOP.tasks},
    controlled=("identity", "reverse", "sort", "set", "union", "delete", "stack", "dyck 64", "dyck_shuffle 64", "eca"),
)
SIZES = {"smoke": SMOKE, "laptop": LAPTOP, "gpu": PAPER, "paper": PAPER}


def sources(scale: str, most: int | None = None) -> dict[str, Phase]:
    """Stage one of every source, by the name that the cells have for it; a transform reads at most so many tokens."""
    size = SIZES[scale]
    read, firsts = min(size.read, most or size.read), {}
    for name in ("identity", "reverse", "sort", "set", "union", "delete", "stack"):
        firsts[name] = Phase(name, size.stage_one, {"length": read, "vocab": 100}, tied=True)
    for name in ("dyck", "dyck_shuffle"):
        for k in BRACKETS:
            firsts[f"{name} {k}"] = Phase(name, size.stage_one, {"k": k, "length": size.word}, tied=True)
    firsts["eca"] = Phase("eca", size.stage_one, size.automaton, tied=True)
    return firsts


def without_order(first: Phase) -> Phase:
    """The same stage one, its tokens shuffled within each sequence; there is nothing to master."""
    return replace(first, source=f"shuffled:{first.source}").at(mastery=None)


def diagnostics(scale: str) -> dict[str, Phase]:
    """Stage two of every diagnostic."""
    size = SIZES[scale]
    by_task = {name: Phase(name, size.stage_two, settings) for name, settings in size.tasks.items()}
    if scale in ("gpu", "paper"):
        by_task["multiplication"] = replace(by_task["multiplication"], stage=replace(size.stage_two, batch=64))
    return by_task


def body(scale: str, task: str) -> Body:
    """A diagnostic's model: the smallest, but that the paper multiplies with a larger one."""
    large = scale in ("gpu", "paper") and task == "multiplication"
    return Body(layers=4, heads=8, width=512) if large else Body()


def cells(scale: str, tuned: bool = False) -> dict[str, Cell]:
    """The grid and its controls; `tuned`: every diagnostic from where it alone learns most, every stage one from where
    stage ones are learnt best, or, for a `same start`, from where its diagnostic starts.
    """
    tasks = SIZES[scale].tuned if tuned else diagnostics(scale)
    return by_name(cell for task in tasks for cell in of_task(scale, task, tuned))


def by_name(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The cells by what they are."""
    factors = ((each, each.factors) for each in cells)
    return {" / ".join(filter(None, (of.task, of.swept, of.front, of.carried))): each for each, of in factors}


def of_task(scale: str, task: str, tuned: bool) -> Iterator[Cell]:
    """A diagnostic alone, and after every source."""
    size, firsts = SIZES[scale], sources(scale)
    second, sized, begun = diagnostics(scale)[task], body(scale, task), None
    noise = Phase("random", size.stage_one, {"length": size.word, "vocab": 128}, tied=True).at(mastery=None)
    shuffled = {f"shuffled {name}": without_order(firsts[name]) for name in size.controlled}
    if tuned:
        (second, sized), begun = size.tuned[task].of(second, sized), FIRST
        second = second.at(evaluate_every=second.stage.evaluate_every // 4)

    def alone(front: str, recipe: Recipe) -> Cell:
        return Cell(recipe, Factors(task, front))

    def put(front: str, first: Phase, rules: Transfer, carried: str, beside: Mapping[str, Phase] = {}) -> Cell:
        body_stage_one = None if carried == SAME else begun
        return Cell(Recipe(first, rules, second, sized, body_stage_one, beside), Factors(task, front, carried))

    yield alone("random init", Recipe(None, None, second, sized, begun))
    if not tuned:
        yield alone("wide init", Recipe(None, None, second, replace(sized, init=sized.width**-0.5)))
        if task in size.tuned:
            yield alone("tuned init", size.tuned[task].recipe(second, sized))
    longer = second.at(steps=second.stage.steps + size.stage_one.steps)
    yield alone("longer training", Recipe(None, None, longer, sized, begun))
    yield put("random tokens", noise, FULL, "full")
    for (name, first), (carried, rules) in product(firsts.items(), TRANSFERS.items()):
        yield put(name, first, rules, carried)
    yield put("set + eca", firsts["set"], COMPOSED, "composed", {"eca": firsts["eca"]})
    for name, first in shuffled.items():
        yield put(name, first, FULL, "full")
    for name in size.controlled:
        yield put(name, firsts[name], PERMUTED, "permuted")
    if tuned and sized != FIRST:
        for name, first in {**firsts, **shuffled, "random tokens": noise}.items():
            yield put(name, first, FULL, SAME)
        for name in size.controlled:
            yield put(f"permuted {name}", firsts[name], PERMUTED, SAME)


def tuning(scale: str) -> dict[str, Cell]:
    """The diagnostics alone, from several starts and at two rates: the best is a control of the grid."""
    cells: dict[str, Cell] = {}
    for task, second in diagnostics(scale).items():
        sized = body(scale, task)
        wide = sized.width**-0.5
        for lr in (second.stage.lr, 4 * second.stage.lr):
            each = starts(second.at(lr=lr), (Body.init, wide), (Body.init, wide, 4 * wide), sized)
            for name, recipe in each.items():
                cells[f"{task} / {name} / rate {lr:g}"] = Cell(recipe, Factors(task, name, swept="lr", amount=lr))
    return cells


def drawn(scale: str) -> dict[str, Cell]:
    """Sums drawn zero-padded and as the authors' code draws them, after what the paper has numbers of."""
    cells, firsts = [], sources(scale, READ)
    stack = firsts["stack"]
    firsts[THEIR_STACK] = replace(stack, settings={**stack.settings, "forced": 1})
    firsts["shuffled eca"] = without_order(firsts["eca"])
    for task in ARITHMETIC:
        plain = diagnostics(scale)[task]
        for draw, settings in DRAWS.items():
            second = replace(plain, settings={**plain.settings, **settings})
            cells.append(Cell(Recipe(None, None, second), Factors(task, swept=draw)))
            for front, carried in STATED:
                recipe = Recipe(firsts[front], TRANSFERS[carried], second)
                cells.append(Cell(recipe, Factors(task, front, carried, swept=draw)))
    return by_name(cells)


EXPERIMENT = Experiment(
    name="skills",
    asks="What does each kind of structure teach?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 10, "gpu": 10, "paper": 10},
    first_seed=300,
    live=(
        "reversed_addition / random init",
        "reversed_addition / stack / full",
        "reversed_addition / stack / attention",
        "reversed_addition / eca / full",
    ),
    live_seeds=range(400, 404),
)
TUNED = Experiment(
    name="skills_tuned",
    asks="What does each kind of structure add to a good start?",
    cells=partial(cells, tuned=True),
    seeds={"smoke": 1, "laptop": 6, "gpu": 10, "paper": 10},
    first_seed=300,  # the data of `skills`, seed by seed
)
DRAWN = Experiment(
    name="skills_drawn",
    asks="How much of what a front does to sums is in how the sums are drawn?",
    cells=drawn,
    seeds={"smoke": 1, "laptop": 6, "gpu": 6, "paper": 6},
    first_seed=300,
)
TUNING = Experiment(
    name="skills_tuning",
    asks="From which initialisation, and at which rate, does each diagnostic alone learn most?",
    cells=tuning,
    seeds={"smoke": 1, "laptop": 2, "gpu": 2, "paper": 2},
    first_seed=390,  # of no seed above
)
