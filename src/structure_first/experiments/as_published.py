"""The recipe that Jiang et al. 2026 trained text with (semantic stage), at each scale.

The settings are those of the authors' code: GPT-2's initialisation, dropout, and no warm-up of the rate. At `laptop`
and `gpu` the rate is theirs for the width, since Adam's best rate goes as one over it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from structure_first.data.registry import source as made
from structure_first.experiments.text import known, tokens
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Phase
from structure_first.training.stage import Stage

MATH = "answers:math/characters"  # the loss is on the answers alone
EPOCHS = 13  # that the authors read of C4 (?)
DROPOUT = 0.1  # in both stages
NARROW = 128  # the width of a model that takes a core a quarter of an hour
# A better baseline, found at the narrow width; rates go as one over it, weights as one over its root.
WIDER = 3.0  # times GPT-2's initialisation
WARMUP = 200
BEST = 2e-3  # the rate, warmed up: from a first look on code, until all of the ladder has run


@dataclass(frozen=True)
class Published:
    """The recipe at one size."""

    body: Body
    corpora: Mapping[str, Phase]  # stage two on each
    stage_one: Stage
    settings: Mapping[str, int]  # of the procedural sources, for those that have them
    filling: Mapping[str, Mapping[str, int]]  # of those sources that fill the context, on their own
    otherwise: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # before one of the corpora

    def front(self, source: str, corpus: str) -> Phase:
        """Stage one before that corpus, on a procedural source or on a corpus; what fills the context has as many
        tokens an update as Set.
        """
        if source in self.corpora:
            own = replace(self.corpora[source], stage=self.stage_one)
            return self.as_large(own, tokens(own) // own.stage.sequences, corpus)
        if source in self.filling:
            own = Phase(source, self.stage_one, self.filling[source], tied=True, dropout=DROPOUT)
            return self.as_large(own, length(source, **own.settings), corpus)
        settings = known(source, {**self.settings, **self.otherwise.get(corpus, {})})
        return Phase(source, self.stage_one, settings, tied=True, dropout=DROPOUT)

    def as_large(self, phase: Phase, each: int, corpus: str) -> Phase:
        """A stage one whose sequences have `each` so many tokens, with as many an update as Set has."""
        whole = self.stage_one.batch * length("set", **self.front("set", corpus).settings)
        return phase.at(batch=max(1, round(whole / each)))


@cache
def length(source: str, **settings: int | float | None) -> int:
    """Tokens of a sequence, of which one is drawn to tell: once, for the cells are asked for often."""
    return made(source, **settings).length


def stage_two(source: str, stage: Stage, context: int, pool: int) -> Phase:
    return Phase(source, stage, {"context": context, "tokens": pool}, tied=True, dropout=DROPOUT)


def warmed(text: Phase, lr: float) -> Phase:
    """The text at another rate, which is warmed up."""
    return text.at(lr=lr, warmup=min(WARMUP, text.stage.steps // 4))


@dataclass(frozen=True)
class Choice:
    """How a baseline begins and is trained where it is better than as published, in numbers of the narrow width."""

    times: float = WIDER  #: as wide first weights as GPT-2's, those of the embeddings too
    rate: float = BEST  #: warmed up
    longer: float = 1.0  #: times as long a warm-up
    decay: float | None = None  #: None: as published
    dropout: float = DROPOUT

    def of(self, at: Published) -> Published:
        """The recipe so: rates go as one over the width, weights as one over its root."""
        narrower, texts = NARROW / at.body.width, {}
        for corpus, text in at.corpora.items():
            phase = warmed(text, narrower * self.rate)
            decay = text.stage.weight_decay if self.decay is None else self.decay
            longer = phase.at(warmup=round(self.longer * phase.stage.warmup), weight_decay=decay)
            texts[corpus] = replace(longer, dropout=self.dropout)
        return replace(at, body=replace(at.body, init=self.times * narrower**0.5 * at.body.init), corpora=texts)


def filling(context: int) -> dict[str, dict[str, int]]:
    """Settings of the sources whose sequences fill code's context, as the authors' brackets do; a grid is 38 long."""
    words, noise = {"length": context, "k": 64}, {"length": context, "vocab": 100}
    grids = {"eca": {"length": context}, "nca": {"grids": context // 38}}
    return {"dyck": words, "dyck_shuffle": words, **grids, "random": noise}


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
        body, settings = Body(layers=12, heads=12, width=768), {"length": 32, "vocab": 100}
        return Published(body, corpora, first, settings, filling(1_024), {"language": {"length": 64}})
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
    read = max(code.sequences * (context + 1), 30_000)
    corpora = {
        "code": stage_two("code/bytes", code, context, read + read // 10),  # a twentieth is held out
        "language": stage_two("language/bytes", language, context, max(read // EPOCHS, 30_000)),
        "math": stage_two(MATH, code, context, read + read // 10),
    }
    full = filling(context)
    if scale == "smoke":
        full["nca"] = {"grids": 2, "width": 4, "states": 4, "least": 0}
    return Published(body, corpora, first, settings, full)
