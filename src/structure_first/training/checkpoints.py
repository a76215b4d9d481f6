"""Checkpoints: safetensors, written beside their place and moved there: a kill at any moment leaves a whole one."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from structure_first.errors import UserError, reason
from structure_first.files import replacing


def save(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write `tensors` and `meta` (JSON) at `path`, or leave what is there as it was and raise `UserError`."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"meta": json.dumps(meta)})


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and meta of a checkpoint; a broken one is a `UserError` that names the file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["meta"])  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read checkpoint {path}: {reason(error)}; delete it to start this run again") from None
