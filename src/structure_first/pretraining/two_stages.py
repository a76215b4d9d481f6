"""One run of two stages on a corpus of one's own: packed, trained, kept, exported. Nothing finished is done again.

The folder of a run holds `config.yaml`, `corpus/` (unless it was packed elsewhere), `rows.parquet` and `manifest.json`
(`evidence.store`), `checkpoints/` while a stage trains, `weights/` of both stages, and `export/` for Hugging Face.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import yaml

from structure_first.cost import flops
from structure_first.data.batch import Source
from structure_first.data.corpora import tokenisers
from structure_first.data.corpora.packed import MANIFEST, Packed, read_manifest
from structure_first.data.corpora.packed import source as packed_source
from structure_first.data.corpora.packing import pack, saved_tokeniser
from structure_first.errors import UserError
from structure_first.evidence.store import Store, environment
from structure_first.files import replacing
from structure_first.model import weights
from structure_first.model.transfer import transfer
from structure_first.model.transformer import Shape, Transformer
from structure_first.pretraining.config import Config, Training
from structure_first.runs.jobs import out_of_memory
from structure_first.runs.recipe import digest
from structure_first.training import processes
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import keep_freed_memory
from structure_first.training.loop import fit

SETTINGS, EXPORT = "config.yaml", "export"
EXPERIMENT, SCALE = "two stages", "own"  # in the rows


@dataclass(frozen=True)
class Half:
    """A stage of the run: what it trains on, how, and the transformer that it trains."""

    number: int
    label: str
    training: Training
    source: Source
    shape: Shape
    tokens: int  # that are trained on, unless the source is mastered before

    def flops(self, steps: int | None = None) -> int:
        """What the first `steps` updates cost, or all of them."""
        counts = self.training.updates(self.source.settings.get("length"), steps)
        each = (count * flops.training(self.shape, self.source.at(length)) for length, count in counts.items())
        return self.training.batch * sum(each)


def halves(config: Config, corpus: Source) -> list[Half]:
    """The stages that there are, with `corpus` for stage two to train on."""
    found, first = [], config.stage_one
    if first:
        shape = config.shape.at(first.made.vocab, first.made.length - 1, tied=first.tied, dropout=first.dropout)
        found.append(Half(1, first.label, first, first.made, shape, first.tokens))
    shape = config.shape.at(corpus.vocab, config.corpus.context)
    label = f"{config.corpus.name or config.corpus.packed}, context {config.corpus.context:,}"
    return [*found, Half(2, label, config.stage_two, corpus, shape, config.tokens)]


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
        rules = asdict(self.config.transfer).values() if self.config.stage_one else ()
        return {rule[5:-1]: weights.load(Path(rule[5:-1])) for rule in rules if rule.startswith("from(")}

    @property
    def cell(self) -> str:
        return self.config.stage_one.label if self.config.stage_one else "random init"

    def train(self) -> pd.DataFrame:
        """Do what is missing and return the rows of both stages; raises `UserError` in a folder of another run.

        Under torchrun all processes call this; the first alone packs and writes.
        """
        first, device = processes.first(), pick_device(self.device)
        with self.store.locked() if first else nullcontext():
            self.check()
            packed = self.packed()
            corpus = packed_source(packed, self.config.corpus.context, checked=first)
            found, model = halves(self.config, corpus), None
            if first and not (self.folder / SETTINGS).exists():
                with replacing(self.folder / SETTINGS) as temporary:
                    temporary.write_text(yaml.safe_dump(self.config.plain(), sort_keys=False))
            with processes.joined(device) as device:
                for half in found if not self.finished(found[-1]) else ():
                    model = self.load(half).to(device) if self.finished(half) else self.fit(half, model, packed, device)
            if first and not (self.folder / EXPORT / "config.json").exists():
                self.export(found[-1], packed)
            return self.store.rows()

    def check(self) -> None:
        """Refuse, before anything is done, weights that are not there and a folder whose run began otherwise."""
        self.others  # noqa: B018  reads them
        path = self.folder / SETTINGS
        if not path.exists():
            return
        try:
            began = dict(leaves(yaml.safe_load(path.read_text())))
        except (OSError, yaml.YAMLError, ValueError, AttributeError) as error:
            raise UserError(
                f"cannot read {path}: {' '.join(str(error).split())}; restore it or remove the run"
            ) from None
        now = dict(leaves(self.config.plain()))
        for key in sorted(began.keys() | now.keys()):
            if began.get(key) != now.get(key) and not key.startswith("compute."):
                problem = f"{self.folder} holds a run with {key} {began.get(key)}, not {now.get(key)}"
                raise UserError(f"{problem}; name another --out, or remove this run")

    def packed(self) -> Path:
        """The folder of the packed corpus; the first process packs it where that is missing, and the others wait."""
        corpus, folder = self.config.corpus, self.folder / "corpus"
        if corpus.packed is not None:
            folder = Path(corpus.packed)
            if corpus.tokeniser not in (None, read_manifest(folder)["tokeniser"]["name"]):
                wanted = tokenisers.tokeniser(corpus.tokeniser, lambda: ())
                Packed(folder, checked=False).match(tokenisers.digest(wanted))
        else:
            limit = corpus.limit_tokens or self.config.enough
            if processes.first():
                options = {name: getattr(corpus, name) for name in ("text_column", "seed", "held_out")}
                pack(corpus.name, corpus.tokeniser, folder, **options, limit_tokens=limit)
            else:
                while not reaches(folder, limit):
                    time.sleep(1)
        made = read_manifest(folder)["tokeniser"]
        if corpus.vocab not in (None, made["vocab"]):
            raise UserError(
                f"corpus.vocab is {corpus.vocab:,} but {made['name']} has {made['vocab']:,} tokens; mend it"
            )
        return folder

    def run(self, half: Half) -> str:
        """The key of a stage's rows: of all that it depends on."""
        said = self.config.plain() | {"compute": None}
        return digest(said if half.number == 2 else {name: said[name] for name in ("seed", "shape", "stage_one")})

    def weights(self, half: Half) -> Path:
        return self.folder / "weights" / f"stage_{half.number}.safetensors"

    def finished(self, half: Half) -> bool:
        return self.run(half) in set(self.store.rows()["run"]) and self.weights(half).exists()

    def load(self, half: Half) -> Transformer:
        return weights.load(self.weights(half))

    def fit(self, half: Half, before: Transformer | None, packed: Path, device: torch.device) -> Transformer:
        """Train a stage, from its checkpoint if there is one; keep its weights, then its rows."""
        keep_freed_memory()
        seeds, began = [self.config.seed], time.monotonic()
        name, stage = f"stage {half.number}", half.training.stage
        checkpoint = self.folder / "checkpoints" / f"stage_{half.number}.safetensors"
        at_once = self.config.compute.micro_batch or -(-stage.batch // processes.world())  # in an evaluation as well
        compute = replace(self.config.compute, micro_batch=at_once)
        try:
            if before is None:
                model = Transformer(half.shape, seeds).to(device)
            else:
                model = transfer(before, half.shape, self.config.transfer, seeds, self.others)
            measured = fit(
                model,
                half.source,
                stage,
                stream=name,
                label=f"{name}: {half.label}",
                checkpoint=checkpoint,
                compute=compute,
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            problem = f"{name} needs more memory than there is; lower compute.micro_batch, batch or held_out"
            raise UserError(f"{problem}, write compute: {{recompute: true}}, or take a smaller shape") from None
        if processes.first():
            self.keep(half, model, measured, packed, time.monotonic() - began)
            checkpoint.unlink(missing_ok=True)
        processes.agreed(0)  # none looks at the rows before the first has written them
        return model

    def keep(self, half: Half, model: Transformer, measured: list[dict], packed: Path, seconds: float) -> None:
        """Write a stage's weights, then its rows."""
        weights.save(self.weights(half), model)
        rows = pd.DataFrame(measured).drop(columns="replica")
        rows["flops"] = [half.flops(step) for step in rows["step"]]
        rows = rows.assign(stage=half.number, experiment=EXPERIMENT, scale=SCALE, cell=self.cell, run=self.run(half))
        manifest = {
            "configuration": self.config.plain(),
            "stage": half.number,
            "source": {"name": half.source.name, **half.source.settings},
            "corpus": {name: value for name, value in read_manifest(packed).items() if name != "state"},
            "seconds": round(seconds, 1),  # since it was last started
            **environment(),
        }
        self.store.append(rows, {self.run(half): manifest})

    def export(self, half: Half, packed: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` load; the file that says it is whole comes last."""
        tokenisers.save(saved_tokeniser(packed, read_manifest(packed)), self.folder / EXPORT)
        weights.export(self.folder / EXPORT, self.load(half))


def reaches(folder: Path, limit: int) -> bool:
    """Whether that much of a corpus is packed, or all of it."""
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    return manifest["finished"] and (manifest["ended"] or sum(manifest["tokens"].values()) >= limit)


def leaves(value: dict, path: str = "") -> Iterator[tuple[str, object]]:
    """Each setting with its path: `stage_two.steps`."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
