"""Memory: what a training takes of it, counted from the model on tensors that have a size and no memory."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from structure_first.data.batch import Batch, Source
from structure_first.model.kernels import narrow
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.compute import Compute
from structure_first.training.predictions import predict
from structure_first.training.protocol import Model
from structure_first.training.stage import Stage

THERE_AND_BACK = 2  # the loss's gradient and the logits', each as large as the largest piece that is kept
USABLE = 0.8  # of what is free: the rest is for kernels, for what fragments, and for what is not counted
TOKEN = 9  # bytes of a token and its place in the loss's mask


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def usable_memory(device: torch.device) -> float:
    """Bytes that a training may count on."""
    return USABLE * free_memory(device)


def needed(
    shape: Shape, source: Source, stage: Stage, micro_batch: int, compute: Compute = Compute(), processes: int = 1
) -> tuple[dict[str, float], float]:
    """The bytes that one replica takes of each process, by what takes them; and those of each sequence computed at
    once, of which there are `micro_batch`.
    """
    one, two = (activation_bytes(shape, source.length, source.window, compute, count) for count in (1, 2))
    share = 4 * weight_count(shape) / (processes if compute.sharded else 1)
    activations = one + (micro_batch - 1) * (two - one)
    by_use = {"weights": share, "gradients": share, "AdamW": 2 * share, "activations": activations}
    by_use["batches"] = TOKEN * source.length * (stage.batch + stage.held_out)
    if compute.sharded:
        # The rest of the model is gathered for a whole step, and at most two blocks at a time, with their gradients.
        block = weight_count(replace(shape, layers=2)) - weight_count(replace(shape, layers=1))
        gathered = weight_count(shape) - max(0, shape.layers - 2) * block
        by_use["gathered"] = 2 * gathered * (2 if compute.precision == "bfloat16" else 4)
    return by_use, two - one


def weight_count(shape: Shape) -> int:
    """How many weights a transformer of that shape has."""
    with torch.device("meta"):
        return by_layers(shape, lambda one: sum(each.numel() for each in Transformer(one, fresh=False).parameters()))


@cache  # a plan asks it of a hundred programs, few of them unlike
def activation_bytes(shape: Shape, length: int, window: int, compute: Compute, count: int) -> float:
    """Bytes at the peak of a backward pass over `count` sequences of so many tokens, which bear loss within a window,
    weights and gradients left out.

    Where blocks are computed again in the backward pass, one of them at a time is there, and of each its input.
    """

    def counted(shape: Shape) -> int:
        # The narrow kernel looks at numbers; a model that it serves is small.
        small = narrow(shape.width // shape.heads, shape.context)
        with nullcontext() if small else FakeTensorMode(), compute.cast(torch.device("cpu")):
            tokens = torch.zeros(1, count, length, dtype=torch.long)
            batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
            return peak(Transformer(shape, fresh=False), batch, window)

    if not compute.recompute:
        return by_layers(shape, counted)
    return counted(replace(shape, layers=1)) + 4 * count * (length - 1) * shape.width * shape.layers


def by_layers(shape: Shape, measure: Callable[[Shape], int]) -> int:
    """What `measure` says of a shape, of a deep one by what the third layer adds: so does each that follows."""
    if shape.layers <= 3:
        return measure(shape)
    two, three = (measure(replace(shape, layers=layers)) for layers in (2, 3))
    return two + (shape.layers - 2) * (three - two)


def peak(model: Model, batch: Batch, window: int) -> int:
    """Bytes at the peak of a backward pass, weights and gradients left out: what the forward pass keeps for it, and the
    gradients that are as large as the largest piece of that.
    """
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor  # tells pieces apart that are counted but not there, too
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        predict(model, batch, window).nats()
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    sizes = [tensor.untyped_storage().nbytes() for storage, tensor in storages.items() if storage not in own]
    return sum(sizes) + THERE_AND_BACK * max(sizes)
