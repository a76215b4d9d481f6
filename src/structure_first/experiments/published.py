"""The published recipe on text: does structure in front do what the paper says, and what of it is the recipe's doing?

The settings are those of the authors' code (Jiang et al. 2026, semantic stage): GPT-2's initialisation, dropout, and no
warm-up of the rate. At `laptop` and `gpu` the rate is theirs for the width, since Adam's best rate goes as one over it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from structure_first.experiments.text import BODY, CARRIED
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

SOURCES = ("union", "sort")  # beside Set
PUBLISHED = "no warm-up"  # the first rung of the ladder: and GPT-2's start
RUNGS = (PUBLISHED, "warmed up", "wider start")
MATH = "answers:math/characters"  # the loss is on the answers alone
EPOCHS = 13  # that the authors read of C4 (?)
DROPOUT = 0.1  # in both stages
SHORTER = (25, 5)  # so many times, in the sweep of stage one's length: 100 and 500 updates
NARROW = 128  # the width at which what follows was found; rates go as one over it, weights as one over its root
WIDER = 3.0  # times GPT-2's initialisation, of the ladder's last rung
WARMUP = 200
RATES = (3e-4, 1e-3, 2e-3, 4e-3)
BEST = 2e-3  # of these, where the rate is warmed up: from a first look, until all of the ladder has run
PARTS = {
    "full": CARRIED["full"],
    "permuted": CARRIED["permuted"],
    "rescaled": Transfer.only(**dict.fromkeys(BODY, "rescale")),
    "attention": CARRIED["attention"],
    "mlp": CARRIED["mlp"],
}


@dataclass(frozen=True)
class Published:
    """The recipe at one size."""

    body: Body
    corpora: Mapping[str, Phase]  # stage two on each
    stage_one: Stage
    settings: Mapping[str, int]  # of the procedural sources

    def front(self, source: str) -> Phase:
        return Phase(source, self.stage_one, self.settings, tied=True, dropout=DROPOUT)

    def cells(
        self,
        corpus: str,
        rung: str,
        rate: float,
        ending: str = "",
        sources: Iterable[str] = SOURCES,
    ) -> dict[str, Cell]:
        """Stage two on the corpus alone, after each source, and after what tells what of Set it is."""
        text, found = self.corpora[corpus], {}

        def put(front: str, carried: str | None = None) -> None:
            first, rules = (None, None) if carried is None else (self.front(front), PARTS[carried])
            name = f"{corpus} / {front}{'' if carried in (None, 'full') else f' / {carried}'}{ending}"
            factors = Factors(corpus, front, carried, width=self.body.width, swept=rung, amount=rate)
            found[name] = Cell(Recipe(first, rules, text, self.body), factors)

        put("random init")
        for carried in PARTS:
            put("set", carried)
        for source in sources:
            put(source, "full")
        return found


def stage_two(source: str, stage: Stage, context: int, pool: int) -> Phase:
    return Phase(source, stage, {"context": context, "tokens": pool}, tied=True, dropout=DROPOUT)


def size(scale: str) -> Published:
    """At `paper` the authors' own; at `laptop` the smallest at which the effect is plain, a quarter of an hour a model
    of one core; at `gpu` four times as wide, and less than a minute a model.
    """
    first = Stage(2_500, 64, 5e-4, warmup=0, schedule="constant", weight_decay=0.1, held_out=256, evaluate_every=2_500)
    if scale == "paper":
        code = Stage(20_000, 48, 5e-5, warmup=0, weight_decay=0.01, held_out=400, evaluate_every=1_000)
        language = Stage(10_000, 32, 5e-4, warmup=0, floor=0.1, weight_decay=0, held_out=400, evaluate_every=500)
        corpora = {
            "code": stage_two("codeparrot/codeparrot/codeparrot", code, 1_024, 1_000_000_000),
            "language": stage_two("c4/gpt2", language, 2_048, 655_360_000 // EPOCHS),
            "math": stage_two(MATH, replace(code, steps=50_000, batch=64), 512, 1_640_000_000),
        }
        return Published(Body(layers=12, heads=12, width=768), corpora, first, {"length": 32, "vocab": 100})
    code = Stage(1_500, 16, 3e-4, warmup=0, weight_decay=0.01, held_out=256, evaluate_every=75)
    language = replace(code, lr=3e-3, floor=0.1, weight_decay=0)
    body, context, settings = Body(layers=4, heads=4, width=NARROW), 256, {"length": 32, "vocab": 100}
    if scale == "gpu":
        body, context = Body(layers=4, heads=8, width=4 * NARROW), 512
        code, language = (replace(each, steps=3_000, lr=each.lr / 4, evaluate_every=150) for each in (code, language))
    if scale == "smoke":
        first = replace(first, steps=20, batch=8, held_out=16, evaluate_every=20)
        code, language = (replace(each, steps=20, batch=4, held_out=16, evaluate_every=5) for each in (code, language))
        body, context, settings = Body(width=16), 32, {"length": 8, "vocab": 20}
    read = max(code.steps * code.batch * (context + 1), 30_000)
    corpora = {
        "code": stage_two("code/bytes", code, context, read + read // 10),  # a twentieth is held out
        "language": stage_two("language/bytes", language, context, max(read // EPOCHS, 30_000)),
        "math": stage_two(MATH, code, context, read + read // 10),
    }
    return Published(body, corpora, first, settings)


def cells(scale: str) -> dict[str, Cell]:
    """The recipe as it was published; and on code the ladder from it to a tuned baseline, a rung at a time."""
    found: dict[str, Cell] = {}
    sized = size(scale)
    for corpus, text in sized.corpora.items():
        found |= sized.cells(corpus, PUBLISHED, text.stage.lr)
    if scale == "paper":
        return found
    text = sized.corpora["code"]
    read = text.stage.steps * text.stage.batch * (int(text.settings["context"] or 0) + 1)
    for times in SHORTER:
        updates = max(1, sized.stage_one.steps // times)
        first = sized.front("set").at(steps=updates, evaluate_every=updates)
        share = round(updates * sized.stage_one.batch * first.make().length / read, 3)
        factors = Factors("code", "set", "full", share, width=sized.body.width, swept=PUBLISHED, amount=text.stage.lr)
        found[f"code / set / {updates} updates"] = Cell(Recipe(first, PARTS["full"], text, sized.body), factors)
    warmup = min(WARMUP, text.stage.steps // 4)
    warm = text.at(warmup=warmup)
    narrower = min(1.0, NARROW / sized.body.width)
    rates = [narrower * rate for rate in RATES]
    rungs = [(PUBLISHED, sized, text.at(lr=rate)) for rate in rates if rate != text.stage.lr]
    rungs += [(RUNGS[1], sized, warm.at(lr=rate)) for rate in rates]
    wide = replace(sized, body=replace(sized.body, init=WIDER * narrower**0.5 * sized.body.init))
    rungs += [(RUNGS[2], wide, warm.at(lr=narrower * BEST))]
    for rung, at, phase in rungs:
        rate = phase.stage.lr
        ladder = replace(at, corpora={"code": phase})
        found |= ladder.cells("code", rung, rate, f" / {rung} at {rate:g}", sources=())
    return found


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
