"""One run of two stages on a corpus of one's own: packed, trained, kept, exported. Nothing finished is done again.

The folder of a run holds `config.yaml`, `corpus/` (unless it was packed elsewhere), `rows.parquet` and `manifest.json`
(`evidence.store`), `checkpoints/` while a stage trains, `weights/` of both stages, and `export/` for Hugging Face.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd
import yaml

from structure_first.data.corpora import tokenisers
from structure_first.data.corpora.packed import MANIFEST, read_manifest
from structure_first.data.corpora.packing import pack, saved_tokeniser
from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.files import write_text
from structure_first.model import weights
from structure_first.pretraining import card
from structure_first.pretraining.checks import SETTINGS, check, check_vocab, has_trained, too_large
from structure_first.pretraining.config import Config
from structure_first.pretraining.stages import StageJob, jobs, opened
from structure_first.runs.execution import execute
from structure_first.runs.jobs import trained, weights_path
from structure_first.training import processes
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import enough_memory

EXPORT = "export"
EXPERIMENT, SCALE = "two stages", "own"  # in the rows


def train(config: Config, folder: Path, device: str = "auto") -> pd.DataFrame:
    """Do what is missing of a run in its folder and return the rows of both stages.

    Under torchrun all processes call this; the first alone packs and writes. Raises `UserError` for what `check` finds,
    and where the memory is too small.
    """
    is_main, store, where = processes.is_main(), Store(folder), pick_device(device)
    check(config, folder, where)
    with store.locked() if is_main else nullcontext():
        with of_keys() if config.corpus.packed is None else nullcontext():
            packed = packed_corpus(config, folder)
            corpus = opened(config.corpus, packed, checked=is_main)
        if is_main and not has_trained(folder):
            write_text(folder / SETTINGS, yaml.safe_dump(config.plain(), sort_keys=False))
        stages = jobs(config, corpus, folder, device)
        with processes.joined(where):
            for job in stages if not finished(stages[-1]) else ():
                if not finished(job):
                    complete(job, packed)
        if is_main and not (folder / EXPORT / "config.json").exists():
            tokenisers.save(saved_tokeniser(packed, read_manifest(packed)), folder / EXPORT)
            write_text(folder / EXPORT / card.FILE, card.card(config, store.rows()))
            weights.export(folder / EXPORT, trained(stages[-1].replicas, folder))  # config.json, the last: it is whole
        return store.rows()


def finished(job: StageJob) -> bool:
    (model,) = job.replicas
    done = set(Store(job.folder).rows()["configuration"])
    return model.configuration in done and weights_path(model, job.folder).exists()


def complete(job: StageJob, packed: Path) -> None:
    """Train a stage, from its checkpoint if there is one; keep its weights, then its rows."""
    with enough_memory(too_large(job)):
        rows, runs = execute(job)
    if processes.is_main():
        corpus = {name: value for name, value in read_manifest(packed).items() if name != "state"}
        for run in runs.values():
            run |= {"settings": job.config.plain(), "corpus": corpus}
        Store(job.folder).append(rows.assign(experiment=EXPERIMENT, scale=SCALE), runs)
        job.checkpoint.unlink(missing_ok=True)
    processes.all_reduce_max(0)  # none looks at the rows before the first has written them


def packed_corpus(config: Config, folder: Path) -> Path:
    """The folder of the packed corpus; the first process packs it where that is missing, and the others wait."""
    corpus, own = config.corpus, folder / "corpus"
    if corpus.packed is not None:
        return Path(corpus.packed)
    limit = corpus.limit_tokens or config.enough
    if processes.is_main():
        options = {name: getattr(corpus, name) for name in ("text_column", "seed", "held_out")}
        pack(*corpus.unpacked, own, **options, limit_tokens=limit)
    else:
        while not reaches(own, limit):
            time.sleep(1)
    check_vocab(corpus, read_manifest(own)["tokeniser"]["vocab"])
    return own


@contextmanager
def of_keys() -> Iterator[None]:
    """What packing says of its options is said of the keys that stand for them here."""
    try:
        yield
    except UserError as error:
        told = re.sub(r"--(text|held|limit)-(column|out|tokens)", r"corpus.\1_\2", str(error))
        raise UserError(told.replace("raise corpus.held_out", "remove that folder and raise corpus.held_out")) from None


def reaches(folder: Path, limit: int) -> bool:
    """Whether that much of a corpus is packed, or all of it."""
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    return manifest["finished"] and (manifest["ended"] or sum(manifest["tokens"].values()) >= limit)
