"""AdamW, and the clip before it."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from structure_first.training import processes
from structure_first.training.stage import Stage


def adamw(parameters: Sequence[nn.Parameter], stage: Stage) -> torch.optim.AdamW:
    """The optimizer of a stage; norms and biases are a group of their own where they do not decay with the rest."""
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not stage.decay_vectors:
        matrices = [each for each in parameters if each.ndim > 2]  # the first axis is the replicas'
        vectors = [each for each in parameters if each.ndim <= 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=stage.lr, weight_decay=stage.weight_decay, fused=True)


def clip(parameters: Iterable[Tensor], limit: float, spread: bool = False) -> None:
    """Scale each replica's gradient to a norm of `limit` at most; a replica gone to NaN spoils no other.

    Each process holds a part of every gradient where they are `spread`.
    """
    gradients = [processes.local(each.grad).flatten(1) for each in parameters if each.grad is not None]
    alone = len(gradients[0]) == 1  # all gradients are then one vector: a few operations, not a few for each
    if alone and not spread:
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
    else:
        norm = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients]).norm(dim=0)
    if spread:
        norm = processes.all_reduce_sum(norm.square()).sqrt()
    scale = (limit / norm).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale.squeeze() if alone else [scale[:, None]] * len(gradients))
