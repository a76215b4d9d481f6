"""The stages of a run: what each trains on, how, and the transformer that it trains."""

from dataclasses import dataclass
from pathlib import Path

from structure_first.cost import flops
from structure_first.data.batch import Source
from structure_first.data.corpora.documents import documents
from structure_first.data.corpora.hub import HUB
from structure_first.data.corpora.packed import read_manifest
from structure_first.data.corpora.tokenisers import VOCABS, tokeniser
from structure_first.data.registry import source
from structure_first.model.transformer import Shape
from structure_first.pretraining.config import Config, Corpus, Training


@dataclass(frozen=True)
class StageRun:
    """A stage of the run: what it trains on, how, and the transformer that it trains."""

    number: int
    label: str
    training: Training
    source: Source
    shape: Shape
    tokens: int  # that are trained on, unless the source is mastered before

    def flops(self, steps: int | None = None) -> int:
        """What the first `steps` updates cost, or all of them."""
        counts = self.training.updates(self.source.length_setting, steps)
        each = (count * flops.training(self.shape, self.source.at(length)) for length, count in counts.items())
        return self.training.batch * sum(each)


def stages(config: Config, corpus: Source) -> list[StageRun]:
    """The stages that there are, with `corpus` for stage two to train on."""
    found, first = [], config.stage_one
    if first:
        shape = config.shape.at(first.made.vocab, first.made.length - 1, tied=first.tied, dropout=first.dropout)
        found.append(StageRun(1, first.label, first, first.made, shape, first.tokens))
    shape = config.shape.at(corpus.vocab, config.corpus.context)
    label = f"{config.corpus.name or config.corpus.packed}, context {config.corpus.context:,}"
    return [*found, StageRun(2, label, config.stage_two, corpus, shape, config.tokens)]


def stand_in(corpus: Corpus) -> Source:
    """A source of the size that the corpus will have once it is packed."""
    return source("random", vocab=vocab(corpus), length=corpus.context + 1)


def vocab(corpus: Corpus) -> int:
    """How many tokens the corpus's tokeniser has, at most; raises `UserError` where one of the two is not there."""
    if corpus.packed is not None:
        return read_manifest(Path(corpus.packed))["tokeniser"]["vocab"]
    name, wanted = corpus.unpacked
    if name not in HUB and not name.startswith("hub:"):
        documents(name, corpus.text_column, corpus.seed)  # reads no more than names
    if corpus.vocab is not None:
        return corpus.vocab
    kind, _, size = wanted.partition(":")
    if kind == "bpe" and size.isdecimal() and VOCABS[0] <= int(size) <= VOCABS[1]:
        return int(size)
    return tokeniser(wanted, lambda: ()).vocab
