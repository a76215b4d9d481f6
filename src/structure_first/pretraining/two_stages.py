"""One run of two stages on a corpus of one's own: packed, trained, kept, exported. Nothing finished is done again.

The folder of a run holds `config.yaml`, `corpus/` (unless it was packed elsewhere), `rows.parquet` and `manifest.json`
(`evidence.store`), `checkpoints/` while a stage trains, `weights/` of both stages, and `export/` for Hugging Face.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import yaml

from structure_first.data.corpora import tokenisers
from structure_first.data.corpora.packed import MANIFEST, read_manifest
from structure_first.data.corpora.packed import source as packed_source
from structure_first.data.corpora.packing import pack, saved_tokeniser
from structure_first.errors import UserError
from structure_first.evidence.store import Store, environment
from structure_first.files import replacing
from structure_first.model import weights
from structure_first.model.transfer import transfer
from structure_first.model.transformer import Transformer
from structure_first.pretraining import card
from structure_first.pretraining.checks import SETTINGS, check, check_vocab, others, too_large, trained
from structure_first.pretraining.config import Config
from structure_first.pretraining.stages import StageRun, stages
from structure_first.runs.jobs import out_of_memory
from structure_first.runs.recipe import digest
from structure_first.training import processes
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import keep_freed_memory
from structure_first.training.loop import fit

EXPORT = "export"
EXPERIMENT, SCALE = "two stages", "own"  # in the rows


@dataclass(frozen=True)
class TwoStages:
    """The run of a configuration in a folder."""

    config: Config
    folder: Path
    device: str = "auto"

    @cached_property
    def store(self) -> Store:
        return Store(self.folder)

    @cached_property
    def others(self) -> dict[str, Transformer]:
        """What the rules `from(WEIGHTS)` of the transfer name: weights that another run kept."""
        return {path: weights.load(Path(path)) for path in set(others(self.config).values())}

    @property
    def cell(self) -> str:
        return self.config.stage_one.label if self.config.stage_one else "random init"

    def train(self) -> pd.DataFrame:
        """Do what is missing and return the rows of both stages; raises `UserError` in a folder of another run.

        Under torchrun all processes call this; the first alone packs and writes.
        """
        first, device = processes.first(), pick_device(self.device)
        check(self.config, self.folder, device)
        with self.store.locked() if first else nullcontext():
            with of_keys() if self.config.corpus.packed is None else nullcontext():
                packed = self.packed()
                corpus = packed_source(packed, self.config.corpus.context, checked=first)
            found, model = stages(self.config, corpus), None
            if first and not trained(self.folder):
                with replacing(self.folder / SETTINGS) as temporary:
                    temporary.write_text(yaml.safe_dump(self.config.plain(), sort_keys=False))
            with processes.joined(device) as device:
                for stage in found if not self.finished(found[-1]) else ():
                    done = self.finished(stage)
                    model = self.load(stage).to(device) if done else self.fit(stage, model, packed, device)
            if first and not (self.folder / EXPORT / "config.json").exists():
                self.export(found[-1], packed)
            return self.store.rows()

    def packed(self) -> Path:
        """The folder of the packed corpus; the first process packs it where that is missing, and the others wait."""
        corpus, folder = self.config.corpus, self.folder / "corpus"
        if corpus.packed is not None:
            return Path(corpus.packed)
        limit = corpus.limit_tokens or self.config.enough
        if processes.first():
            options = {name: getattr(corpus, name) for name in ("text_column", "seed", "held_out")}
            pack(*corpus.unpacked, folder, **options, limit_tokens=limit)
        else:
            while not reaches(folder, limit):
                time.sleep(1)
        check_vocab(corpus, read_manifest(folder)["tokeniser"]["vocab"])
        return folder

    def settings(self, stage: StageRun) -> dict:
        """All that a stage's results depend on."""
        said = self.config.plain() | {"compute": None}
        return said if stage.number == 2 else {name: said[name] for name in ("seed", "shape", "stage_one")}

    def run(self, stage: StageRun) -> str:
        """The key of a stage's rows."""
        return digest(self.settings(stage))

    def weights(self, stage: StageRun) -> Path:
        return self.folder / "weights" / f"stage_{stage.number}.safetensors"

    def finished(self, stage: StageRun) -> bool:
        return self.run(stage) in set(self.store.rows()["run"]) and self.weights(stage).exists()

    def load(self, stage: StageRun) -> Transformer:
        return weights.load(self.weights(stage))

    def fit(self, stage: StageRun, before: Transformer | None, packed: Path, device: torch.device) -> Transformer:
        """Train a stage, from its checkpoint if there is one; keep its weights, then its rows."""
        keep_freed_memory()
        seeds, began = [self.config.seed], time.monotonic()
        name, training = f"stage {stage.number}", stage.training.stage
        checkpoint = self.folder / "checkpoints" / f"stage_{stage.number}.safetensors"
        at_once = self.config.compute.micro_batch or -(-training.batch // processes.world())  # in an evaluation as well
        compute = replace(self.config.compute, micro_batch=at_once)
        try:
            if before is None:
                model = Transformer(stage.shape, seeds).to(device)
            else:
                model = transfer(before, stage.shape, self.config.transfer, seeds, self.others)
            measured = fit(
                model,
                stage.source,
                training,
                stream=name,
                label=f"{name}: {stage.label}",
                checkpoint=checkpoint,
                compute=compute,
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise too_large(stage) from None
        if processes.first():
            self.keep(stage, model, measured, packed, time.monotonic() - began)
            checkpoint.unlink(missing_ok=True)
        processes.agreed(0)  # none looks at the rows before the first has written them
        return model

    def keep(self, stage: StageRun, model: Transformer, measured: list[dict], packed: Path, seconds: float) -> None:
        """Write a stage's weights, then its rows."""
        weights.save(self.weights(stage), model)
        rows = pd.DataFrame(measured).drop(columns="replica")
        rows["flops"] = [stage.flops(step) for step in rows["step"]]
        rows = rows.assign(stage=stage.number, experiment=EXPERIMENT, scale=SCALE, cell=self.cell, run=self.run(stage))
        manifest = {
            "configuration": digest(self.settings(stage) | {"seed": None}),  # the rows say which
            "settings": self.config.plain(),
            "stage": stage.number,
            "source": {"name": stage.source.name, **stage.source.settings},
            "corpus": {name: value for name, value in read_manifest(packed).items() if name != "state"},
            "seconds": round(seconds, 1),  # since it was last started
            **environment(),
        }
        self.store.append(rows, {self.run(stage): manifest})

    def export(self, stage: StageRun, packed: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` load; the file that says it is whole comes last."""
        tokenisers.save(saved_tokeniser(packed, read_manifest(packed)), self.folder / EXPORT)
        with replacing(self.folder / EXPORT / card.FILE) as temporary:
            temporary.write_text(card.card(self.config, self.store.rows()), encoding="utf-8")
        weights.export(self.folder / EXPORT, self.load(stage))


@contextmanager
def of_keys() -> Iterator[None]:
    """What packing says of its options is said of the keys that stand for them here."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"--(text|held|limit)-(column|out|tokens)", r"corpus.\1_\2", str(error))) from None


def reaches(folder: Path, limit: int) -> bool:
    """Whether that much of a corpus is packed, or all of it."""
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    return manifest["finished"] and (manifest["ended"] or sum(manifest["tokens"].values()) >= limit)
