"""What the experiments on text share: how large everything is at a scale, what goes in front, and what goes across.

At `paper` the sizes are those of Jiang et al. 2026 (semantic stage); at `laptop` a model takes a minute of one core.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from structure_first.cost import flops
from structure_first.data.registry import defaults
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body, Shape
from structure_first.runs.recipe import Factors, Phase, Recipe
from structure_first.training.stage import Stage

BODY = ("attention", "mlp", "norms")  # what goes across to text (Jiang et al. 2026); embeddings and positions are fresh
CARRIED = {
    "full": Transfer.only(*BODY),
    "attention": Transfer.only("attention"),
    "mlp": Transfer.only("mlp"),
    "permuted": Transfer.only(**dict.fromkeys(BODY, "permute")),
    "attention permuted": Transfer.only(attention="permute"),
    "norms": Transfer.only("norms"),
    "without norms": Transfer.only("attention", "mlp"),
    "mlp permuted": Transfer.only(mlp="permute"),
    "rotated": Transfer.only(**dict.fromkeys(BODY, "rotate")),
    "rescaled": Transfer.only(**dict.fromkeys(BODY, "rescale")),
    "all": Transfer(embeddings="keep"),  # from a text to the same text
}
SOURCES = {name: name for name in ("set", "identity", "sort", "union", "dyck", "dyck_shuffle", "eca")}
SOURCES["mixture"] = "set+sort+dyck"
MAIN = "identity"  # of set and identity, tried on code with seeds 500 to 502, the one that a pinch was enough for
HARMFUL = "eca"  # of the sources at 1 %, on code and language with seeds 506 to 508, the one that costs most
BEST = {"language": "mlp", "code": "mlp", "math": "full"}  # of full, attention and mlp, untuned, on seeds 503 to 505


class Text(NamedTuple):
    """A corpus, as `structure-first pack` knows it, and in which tokens."""

    corpus: str
    tokeniser: str
    vocab: int


@dataclass(frozen=True)
class Size:
    """How large everything is at a scale."""

    corpora: Mapping[str, Text]  # by the names that the cells have for them at every scale
    body: Body
    context: int
    pool: int  # tokens of each corpus that are packed
    stage_two: Stage
    stage_one: Stage  # but for its steps
    settings: Mapping[str, int]  # of the procedural sources, for those that have them

    @property
    def tokens(self) -> int:
        """What stage two reads."""
        return self.stage_two.sequences * (self.context + 1)

    def phase(self, corpus: str, share: float = 1.0) -> Phase:
        """Stage two on a share of the text; the schedule ends there."""
        steps = max(2, round(share * self.stage_two.steps))
        warmup = min(self.stage_two.warmup, steps // 2)
        return self.text(corpus, self.stage_two).at(steps=steps, warmup=warmup, evaluate_every=max(1, steps // 10))

    def text(self, corpus: str, stage: Stage) -> Phase:
        settings = {"context": self.context, "tokens": self.pool}
        return Phase("/".join(self.corpora[corpus][:2]), stage, settings, tied=True)

    def front(self, name: str, share: float) -> Phase:
        """Stage one, on a procedural source or a corpus, of about that share of stage two's tokens."""
        if name in self.corpora:
            phase, length = self.text(name, self.stage_one), self.context + 1
        else:
            phase = Phase(name, self.stage_one, known(name, self.settings), tied=True)
            length = phase.make().length
        steps = max(1, round(share * self.tokens / (self.stage_one.batch * length)))
        return phase.at(steps=steps, warmup=min(self.stage_one.warmup, steps // 2), evaluate_every=steps)

    def flops(self, corpus: str) -> int:
        """FLOPs of an update on the text."""
        shape = Shape(self.corpora[corpus].vocab, self.context, **asdict(self.body))
        return self.stage_two.batch * 3 * sum(flops.forward_parts(shape, self.context).values())

    def drawn(self, factor: float, text: Phase) -> Recipe:
        """The text alone, from weights drawn so many times as wide."""
        return Recipe(None, None, text, replace(self.body, init=factor * self.body.init))

    def recipe(self, first: Phase | None, rules: Transfer | None, second: Phase) -> Recipe:
        return Recipe(first, rules, second, self.body)


LAPTOP = Size(
    corpora={
        "language": Text("language", "bytes", 256),
        "code": Text("code", "bytes", 256),
        "math": Text("math", "characters", 99),
    },
    body=Body(layers=2, heads=4, width=64, init=0.08, init_embedding=0.1),
    context=128,
    pool=4_200_000,
    stage_two=Stage(steps=1_000, batch=32, lr=1.2e-2, warmup=200, floor=0.1, weight_decay=0.1, held_out=400),
    stage_one=Stage(batch=4, lr=3e-3, warmup=20, schedule="constant", weight_decay=0.1, held_out=200),
    settings={"length": 16, "vocab": 32, "k": 16, "width": 4},
)
SMOKE = replace(
    LAPTOP,
    body=replace(LAPTOP.body, width=16),
    context=32,
    pool=30_000,
    stage_two=replace(LAPTOP.stage_two, steps=30, batch=8, warmup=6, held_out=20),
)
GPU = Size(
    corpora={
        "language": Text("c4", "bpe:8192", 8192),
        "code": Text("codeparrot", "bpe:8192", 8192),
        "math": Text("math", "characters", 99),
    },
    body=Body(layers=8, heads=8, width=512),
    context=512,
    pool=34_000_000,
    stage_two=Stage(steps=2_000, batch=32, lr=1e-3, warmup=200, floor=0.1, weight_decay=0.1, held_out=400),
    stage_one=Stage(batch=16, lr=5e-4, warmup=20, schedule="constant", weight_decay=0.1, held_out=200),
    settings={"length": 64, "vocab": 100, "k": 64, "width": 16},
)
PAPER = replace(
    GPU,
    corpora={
        **GPU.corpora,
        "language": Text("c4", "gpt2", 50_257),
        "code": Text("codeparrot", "codeparrot/codeparrot", 32_768),
    },
    body=Body(layers=12, heads=12, width=768),
    context=2_048,
    pool=700_000_000,
    stage_two=replace(GPU.stage_two, steps=10_000, lr=5e-4, warmup=1_000),
    stage_one=replace(GPU.stage_one, batch=64, warmup=100, held_out=1_000),
)
SIZES = {"smoke": SMOKE, "laptop": LAPTOP, "gpu": GPU, "paper": PAPER}
# Of the runs that are stored: their corpora were what was installed then, and cannot be made again.
FORMER_CORPORA = {name: text._replace(corpus=f"{text.corpus}@1") for name, text in LAPTOP.corpora.items()}
FORMER_SIZES = {"smoke": SMOKE, "laptop": replace(LAPTOP, corpora={**FORMER_CORPORA, "math": LAPTOP.corpora["math"]})}


def tokens(text: Phase) -> int:
    """What a stage on text reads."""
    return text.stage.sequences * (int(text.settings["context"] or 0) + 1)


def known(source: str, settings: Mapping[str, int]) -> dict[str, int]:
    """Those of the settings that a procedural source has, or what a control of it is made of."""
    names = defaults(source.rpartition(":")[2])
    return {name: value for name, value in settings.items() if name in names}


def called(factors: Factors) -> str:
    """A cell's name: its corpus, what is in front, and what of it goes across if not all: `code / set 1 % / mlp`."""
    share = "" if factors.share is None else f" {percent(factors.share)}"
    carried = "" if factors.carried in (None, "full") else f" / {factors.carried}"
    return f"{factors.task} / {factors.front}{share}{carried}"


def percent(share: float) -> str:
    """A share as cells are named by it."""
    return f"{100 * share:g} %"
