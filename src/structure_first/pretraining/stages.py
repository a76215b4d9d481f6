"""The jobs of a configuration: a stage each, of the one model that it trains."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from structure_first.data.answers import answers
from structure_first.data.batch import Source
from structure_first.data.corpora import packed
from structure_first.data.corpora.documents import documents
from structure_first.data.corpora.hub import HUB
from structure_first.data.corpora.tokenisers import tokeniser
from structure_first.data.registry import source
from structure_first.pretraining.config import Config, Corpus
from structure_first.runs.jobs import Job, Replica
from structure_first.runs.recipe import digest
from structure_first.training import processes
from structure_first.training.compute import Compute
from structure_first.versions import raised


@dataclass(frozen=True)
class Model(Replica):
    """The model of a configuration, after one of its stages: both are of one cell."""

    config: Config

    @cached_property
    def configuration(self) -> str:
        settings = self.config.plain() | {"compute": None, "seed": None}
        if self.stage == 1:
            settings = {name: settings[name] for name in ("seed", "shape", "stage_one")}
        return digest([settings, newer] if (newer := raised(self.rules)) else settings)

    @property
    def rules(self) -> set[str]:
        """As its recipe's, but for the corpus: a path names none, and what was packed elsewhere stays as it is."""
        if self.stage == 1:
            return self.recipe.rules
        packed_by = () if self.config.corpus.packed is not None else self.config.corpus.unpacked
        used = {"dropout": self.phase.dropout, "answers": self.config.corpus.answers}
        own = {*(name.partition(":")[0] for name in packed_by), *(rule for rule, value in used.items() if value)}
        return replace(self.recipe, stage_two=None).rules | own

    @cached_property
    def before(self) -> "Model | None":
        follows = self.stage == 2 and self.recipe.stage_one
        return replace(self, recipe=self.recipe.alone) if follows else None

    @property
    def weights_name(self) -> str:
        return f"stage_{self.stage}"


@dataclass(frozen=True)
class StageJob(Job):
    """A stage of a configuration."""

    config: Config = field(kw_only=True)
    corpus: Source = field(kw_only=True)  # of stage two

    @property
    def name(self) -> str:
        return f"stage {self.stage}: {self.phase.label}"

    @property
    def source(self) -> Source:
        return self.corpus if self.stage == 2 else self.phase.make()

    @property
    def compute(self) -> Compute:
        """As the configuration says; an evaluation computes as many sequences at once as an update."""
        compute, share = self.config.compute, -(-self.phase.stage.batch // processes.world_size())
        return replace(compute, micro_batch=compute.micro_batch or share)

    @cached_property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / f"stage_{self.stage}.safetensors"


def jobs(config: Config, corpus: Source, folder: Path = Path(), device: str = "auto") -> list[StageJob]:
    """A job for each stage, with `corpus` for stage two to train on."""
    recipe = config.recipe
    model = Model(recipe.alone.last.label if recipe.stage_one else "random init", recipe, config.seed, config)
    models = [each for each in (model.before, model) if each]
    return [StageJob((each,), folder, device, config=config, corpus=corpus) for each in models]


def opened(corpus: Corpus, folder: Path, checked: bool = True) -> Source:
    """The packed corpus in that folder, as stage two reads it."""
    windows = packed.source(folder, corpus.context, checked)
    return answers(windows) if corpus.answers else windows


def stand_in(corpus: Corpus) -> Source:
    """A source of the size that the corpus will have once it is packed."""
    return source("random", vocab=vocab(corpus), length=corpus.context + 1)


def vocab(corpus: Corpus) -> int:
    """How many tokens the corpus's tokeniser has, at most; raises `UserError` where one of the two is not there."""
    if corpus.packed is not None:
        return packed.read_manifest(Path(corpus.packed))["tokeniser"]["vocab"]
    name, wanted = corpus.unpacked
    if name not in HUB and not name.startswith("hub:"):
        documents(name, corpus.text_column, corpus.seed)  # reads no more than names
    if corpus.vocab is not None:
        return corpus.vocab
    known = tokeniser(wanted, lambda: ())  # a BPE that is yet to learn has no more than its bytes
    return int(wanted[4:]) if wanted.startswith("bpe:") else known.vocab
