"""All that can be known to be wrong with a run before any work is done for it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from structure_first.cost import memory
from structure_first.data.corpora import tokenisers
from structure_first.data.corpora.packed import read_manifest
from structure_first.errors import UserError, reason
from structure_first.evidence.store import Store
from structure_first.model.transformer import Body
from structure_first.pretraining.config import Config, Corpus
from structure_first.pretraining.reading import read_yaml
from structure_first.pretraining.stages import jobs, opened, stand_in, vocab
from structure_first.runs.jobs import Job
from structure_first.training import processes

SETTINGS = "config.yaml"


def check(config: Config, folder: Path, device: torch.device) -> None:
    """Raise `UserError` for the first thing that would stop the run later; nothing is written."""
    check_folder(config, folder)
    check_corpus(config.corpus)
    stages = jobs(config, stand_in(config.corpus))
    todays = {model.configuration for job in stages for model in job.replicas}
    if set(Store(folder).rows()["configuration"]) - todays:
        problem = f"{folder} holds a run that another version of one of its rules made"
        raise UserError(f"{problem}; name another --out, or remove this run")
    for part, path in config.recipe.others.items():
        check_weights(part, Path(path), config.shape)
    for job in stages:
        check_memory(job, device)


def has_trained(folder: Path) -> bool:
    """Whether a run in that folder has trained, so that its configuration stands."""
    return (folder / "rows.parquet").exists() or any(folder.glob("checkpoints/*"))


def check_folder(config: Config, folder: Path) -> None:
    """Refuse a folder whose run began otherwise, or that holds something else."""
    path = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write to {folder}: it is a file; name another --out folder")
    if not has_trained(folder):
        return
    if not path.exists():
        raise UserError(f"{folder} holds results, but of no training; name another --out")
    Store(folder).rows()  # are they whole?
    before = read_yaml(path, "restore it or remove the run")
    then, now = dict(leaves(before if isinstance(before, dict) else {})), dict(leaves(config.plain()))
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key) and not key.startswith("compute."):
            problem = f"{folder} holds a run with {key} {then.get(key)}, not {now.get(key)}"
            raise UserError(f"{problem}; name another --out, or remove this run")


def check_corpus(corpus: Corpus) -> None:
    """Refuse a corpus or a tokeniser that is not there, and those that do not go together."""
    tokens = vocab(replace(corpus, vocab=None))
    if corpus.packed is not None:
        opened(corpus, Path(corpus.packed), checked=False)
        made_by = read_manifest(Path(corpus.packed))["tokeniser"]
        if corpus.tokeniser not in (None, made_by["name"]):
            wanted = tokenisers.tokeniser(corpus.tokeniser, lambda: ())
            if tokenisers.digest(wanted) != made_by["digest"]:
                other = f"{made_by['name']}, {made_by['digest']}"
                problem = f"the shards in {Path(corpus.packed)} were made by another tokeniser ({other})"
                raise UserError(f"{problem}; use the one saved beside them, or pack again")
    learnt = corpus.packed is None and corpus.unpacked[1].startswith("bpe:")  # from a small corpus it has fewer
    check_vocab(corpus, min(tokens, corpus.vocab or tokens) if learnt else tokens)


def check_vocab(corpus: Corpus, actual: int) -> None:
    if corpus.vocab not in (None, actual):
        raise UserError(
            f"corpus.vocab is {corpus.vocab:,} but the tokeniser has {actual:,} tokens; write that or leave it out"
        )


def check_weights(part: str, path: Path, body: Body) -> None:
    """Refuse weights of another run that are not of such a body, which `transfer` would refuse after stage one."""
    setting = f"transfer.{part}: {path}"
    try:
        with safe_open(path, "pt") as file:
            shape = json.loads(file.metadata()["meta"])["shape"]
        theirs = {name: shape[name] for name in ("layers", "heads", "width")}
    except (OSError, SafetensorError) as error:
        problem = f"cannot read weights from {path}: {reason(error)}"
        raise UserError(f"{problem}; name weights/stage_1.safetensors of a run") from None
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{setting} was written by something else; name weights/stage_1.safetensors of a run") from None
    for name, there in theirs.items():
        if there != (here := getattr(body, name)):
            problem = f"has {name} {there}, this run {here}"
            raise UserError(f"{setting} {problem}; name weights of a model with the same layers, heads and width")


def check_memory(job: Job, device: torch.device) -> None:
    """Refuse a stage of which not even one sequence at once fits into the memory that can be used."""
    by_use, _ = memory.needed(job.shape, job.source, job.phase.stage, 1, job.compute, processes.launched())
    wanted, usable = sum(by_use.values()), memory.usable_memory(device)
    if wanted > usable:
        raise too_large(job, f" ({wanted / 1e9:,.1f} GB for one sequence at once, {usable / 1e9:,.1f} GB can be used)")


def too_large(job: Job, why: str = "") -> UserError:
    """The advice holds for a run that has begun as well: `compute` may change then, the rest may not."""
    advice = "write compute: {recompute: true}, lower compute.micro_batch, or"
    advice += " name another --out for a smaller shape, batch or held_out"
    return UserError(f"stage {job.stage} needs more memory than there is{why}; {advice}")


def leaves(value: dict, path: str = "") -> Iterator[tuple[str, object]]:
    """Each setting with its path: `stage_two.steps`."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
