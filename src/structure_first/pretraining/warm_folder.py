"""A model in a folder, warmed up into another folder: weights, configuration, tokeniser, and a manifest beside them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from structure_first.cost.memory import usable_memory
from structure_first.data.batch import Source
from structure_first.data.corpora.packed import digest
from structure_first.errors import UserError, reason
from structure_first.evidence.store import environment
from structure_first.files import becoming, locked
from structure_first.pretraining.warm import stage_for, warm_up
from structure_first.runs.recipe import Phase
from structure_first.schema import COUNT, validated
from structure_first.training.compute import Compute
from structure_first.training.devices import device as pick_device
from structure_first.versions import raised

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MANIFEST = "structure_first.json"
TOKENISER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_tokens.json")
RECIPE = {"source": str, "seed": COUNT, ...: object}
REACHED = {"accuracy": float, "loss": float, "updates": COUNT, "tokens": COUNT, "seconds": float}
SCHEMA = {"recipe": RECIPE, "reached": REACHED, ...: object}
INSTEAD = "name a config.json of transformers, or a folder with one"


def warm_folder(
    path: Path,
    out: Path,
    source: Source,
    *,
    seed: int = 0,
    embeddings: str = "keep",
    device: str = "auto",
    compute: Compute = Compute(),
    say: Callable[[str], object] = print,
    **stage: Any,
) -> dict:
    """Warm up the model that `path` names, as `warm.warm_up` does, and write it to `out`; returns the manifest.

    `path` is a `config.json` of `transformers`, or a folder with one, whose weights (safetensors) are taken; for a file
    alone, or a folder without any, they are drawn from `seed`. No code that comes with a model is run. `out`, new or
    empty, is either whole or not there; a killed call goes on from the checkpoint beside it, and where it holds what
    this one would make, nothing is done again. Raises `UserError` for a folder that holds anything else, and for a
    model that `transformers` cannot read.
    """
    path, out = Path(path), Path(out)
    config = path / "config.json" if path.is_dir() else path
    check_out(out)
    where = pick_device(device)
    with torch.device("meta"):
        empty = built(config)
    stage_one, weights = stage_for(empty, source, **stage), weights_in(path)
    check_memory(empty, where)
    recipe: dict[str, Any] = {
        "model": [digest(file) for file in (config, *weights)],
        "weights": "as they were" if weights else "drawn from the seed",
        "embeddings": embeddings,
        "source": source.name,
        "settings": dict(source.settings),
        "stage": asdict(stage_one) | {"curriculum": list(stage_one.curriculum)},  # as JSON has it
        "seed": seed,
    }
    if newer := raised(Phase(source.name, stage_one).rules | {embeddings}):
        recipe["version"] = newer
    with locked(out):
        if (out / MANIFEST).exists():
            return check_same(out, recipe)
        model = loaded(config, seed, bool(weights)).to(where)
        checkpoint = out.with_name(f".{out.name}.checkpoint")
        options = stage | dict(seed=seed, embeddings=embeddings, compute=compute, checkpoint=checkpoint, say=say)
        warmed = warm_up(model, source, **options)
        reached = {name: getattr(warmed, name) for name in REACHED}
        manifest = {"recipe": recipe, "reached": reached, "precision": compute.precision, **environment()}
        manifest["packages"]["transformers"] = version("transformers")
        with becoming(out) as temporary:
            model.save_pretrained(temporary)
            for pattern in TOKENISER if path.is_dir() else ():
                for file in path.glob(pattern):
                    shutil.copyfile(file, temporary / file.name)
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            for file in temporary.iterdir():
                shutil.copymode(temporary / MANIFEST, file)  # safetensors lets nobody else read
        checkpoint.unlink(missing_ok=True)
    return manifest


def check_out(out: Path) -> None:
    """Refuse a folder that holds anything but a model that was warmed up."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UserError(f"cannot write to {out}: the current folder is in it; name another --out folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot write to {out}: it is a file; name another --out folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise UserError(f"{out} holds something else; name a new or empty --out folder")


def weights_in(path: Path) -> list[Path]:
    """The files of weights in a folder; raises `UserError` where all there are would have to be unpickled."""
    files = sorted(path.glob("*.safetensors"))
    if not files and (pickled := next(path.glob("pytorch_model*.bin"), None)):
        advice = "save it as safetensors, or name its config.json alone"
        raise UserError(f"{pickled} is pickled, and may run code; {advice}")
    return files


def check_memory(model: "PreTrainedModel", device: torch.device) -> None:
    """Refuse a model that does not fit into the memory that can be used with its gradients and AdamW's state."""
    wanted, usable = 16 * model.num_parameters(), usable_memory(device)
    if wanted > usable:
        problem = f"its weights and what trains them need {wanted / 1e9:,.1f} GB, {usable / 1e9:,.1f} GB can be used"
        raise UserError(f"{problem}; name a smaller model, or another --device")


def check_same(out: Path, recipe: dict) -> dict:
    """The manifest of a folder, if it was made by this recipe."""
    try:
        manifest = validated(json.loads((out / MANIFEST).read_text()), SCHEMA)
    except ValueError as error:
        raise UserError(f"cannot read {out / MANIFEST}: {error}; remove {out} or name another --out") from None
    if different := [name for name in recipe if manifest["recipe"].get(name) != recipe[name]]:
        raise UserError(f"{out} was made with another {different[0]}; name another --out, or remove this one")
    return manifest


def built(config: Path) -> "PreTrainedModel":
    """A model of that configuration; raises `UserError` where `transformers` has none, or would run code to have it."""
    options = dict(dtype=torch.float32, trust_remote_code=False)
    return from_transformers(config, lambda auto, read: auto.from_config(read, **options))


def loaded(config: Path, seed: int, weights: bool) -> Any:
    """The model with its weights, or with fresh ones; the process's own random numbers are left where they were."""
    if not weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return built(config)
    options = dict(dtype=torch.float32, trust_remote_code=False, local_files_only=True, use_safetensors=True)
    read = lambda auto, _: auto.from_pretrained(config.parent, output_loading_info=True, **options)  # noqa: E731
    model, info = from_transformers(config, read)
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"the weights beside {config} lack {missing[0]}; restore them, or name the config.json alone")
    return model


def from_transformers(config: Path, make: Callable) -> Any:
    """What `transformers` makes of a configuration; whatever it raises becomes one line."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise UserError('transformers is not installed; pip install "structure-first[transformers]"') from None
    if not config.is_file():
        raise UserError(f"there is no {config}; {INSTEAD}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        read = AutoConfig.from_pretrained(config, trust_remote_code=False, local_files_only=True)
        return make(AutoModelForCausalLM, read)
    except Exception as error:  # what is in a configuration decides which
        problem = f"transformers makes no causal language model of {config} ({reason(error)})"
        raise UserError(f"{problem}; {INSTEAD}") from None
