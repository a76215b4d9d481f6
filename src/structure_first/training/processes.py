"""The processes that torchrun starts: each trains on its share of every batch. One alone needs none of this."""

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.errors import UserError
from structure_first.training.protocol import Model

TIMEOUT = timedelta(minutes=10)  # the longest that one process waits for another: the first may write a checkpoint


def rank() -> int:
    """The number of this process."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world_size() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> int:
    """How many torchrun has started, whether or not they have joined."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Within, the processes that torchrun started train together; yields this one's device. Without it, `device`.

    Raises `UserError` where there are more processes than GPUs, and in those that are left when another has ended.
    """
    if not dist.is_torchelastic_launched():
        yield device
        return
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(f"this machine has {there} GPUs; start at most as many processes (--nproc-per-node)")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)):
            raise  # no other process is gone: the error is this one's own
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to those that are left; this ends by itself
        reason = str(error).splitlines()[0].split(". ")[0]
        again = "see what it said, and run again: training goes on from its checkpoint"
        raise UserError(f"another process of this run has ended or cannot be reached; {again} ({reason})") from None
    finally:
        dist.destroy_process_group()


def all_reduce_max(*values: int) -> list[int]:
    """The largest that any process gave of each value, in all of them."""
    if world_size() == 1:
        return list(values)
    largest = torch.tensor(values)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same to the bit in each; `tensor` itself holds it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def share(batch: Batch) -> Batch:
    """The sequences of `[replica batch time]` that are this process's: every world-th.

    All processes get as many; where they do not come out even, a sequence that bears no loss fills up.
    """
    if world_size() == 1:
        return batch
    sequences = batch.tokens.shape[1]
    mine = torch.arange(rank(), -(-sequences // world_size()) * world_size(), world_size(), device=batch.tokens.device)
    tokens, loss_mask = (tensor[:, mine.clamp(max=sequences - 1)] for tensor in batch)
    return Batch(tokens, loss_mask & (mine < sequences)[:, None])


def sharded(model: Model, device: torch.device, precision: torch.dtype | None) -> Model:
    """`model`, moved to `device`, each process keeping its part of each weight; products are taken in `precision`.

    A block's weights are gathered as it is computed. Every weight is cut along its last axis, a multiple of the width,
    for the first is the replicas'. Raises `UserError` where the width does not divide by the processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import Shard

    for width in (parameter.shape[-1] for parameter in model.parameters()):
        if width % world_size():
            raise UserError(f"width {width} is not a multiple of {world_size()} processes; start another number")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    cut = partial(
        fully_shard,
        mesh=init_device_mesh(device.type, (world_size(),)),
        shard_placement_fn=lambda parameter: Shard(parameter.ndim - 1),
        mp_policy=MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32),
    )
    for block in model.blocks:
        cut(block)
    cut(model, reshard_after_forward=True)
    return model


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; all of one that is not spread."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on the CPU where it was spread over the processes; every process must ask."""
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor


def spread(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, spread as `parameter` is."""
    if not tensor.ndim or not (hasattr(parameter, "device_mesh") and hasattr(parameter, "placements")):
        return tensor  # a count of steps, or what belongs to a parameter that is not spread
    from torch.distributed.tensor import distribute_tensor

    there = parameter.device_mesh.device_type
    return distribute_tensor(tensor.to(there), parameter.device_mesh, parameter.placements, src_data_rank=None)
