"""AdamW, and the clip before it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from structure_first.training import processes
from structure_first.training.stage import Stage

SETTINGS: dict[str, Any] = dict(fused=True, amsgrad=False, maximize=False, beta1=0.9, beta2=0.999, eps=1e-8)


class AdamW:
    """`torch.optim.AdamW`, to the bit. The class itself would load PyTorch's compiler at the first step, and a process
    that trains would take twice as long to begin.

    Norms and biases are a group of their own, behind the rest, where they do not decay with it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], stage: Stage):
        decaying = [each for each in parameters if stage.decay_vectors or each.ndim > 2]  # the first axis: replicas
        others = [] if stage.decay_vectors else [each for each in parameters if each.ndim <= 2]
        self.parameters = [*decaying, *others]
        places = range(len(self.parameters))
        self.groups = ((places[: len(decaying)], stage.weight_decay), (places[len(decaying) :], 0.0))
        self.state: dict[int, dict[str, Tensor]] = {}  #: by a parameter's place among them

    def load(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Go on from the `state` of another, of whole tensors."""
        for place, each in state.items():
            like = self.parameters[place]
            self.state[place] = {name: processes.spread(tensor, like).to(like.device) for name, tensor in each.items()}

    def zero_grad(self) -> None:
        for each in self.parameters:
            each.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """An update of every parameter that has a gradient."""
        for places, decay in self.groups:
            moved = [place for place in places if self.parameters[place].grad is not None]
            parameters: list[Tensor] = [self.parameters[place] for place in moved]
            for place, each in zip(moved, parameters, strict=True):
                if place not in self.state:
                    fresh = {name: torch.zeros_like(each) for name in ("exp_avg", "exp_avg_sq")}
                    self.state[place] = {"step": torch.zeros((), dtype=torch.float32, device=each.device), **fresh}
            gradients = [each.grad for each in parameters if each.grad is not None]
            steps, means, squares = (
                [self.state[place][name] for place in moved] for name in ("step", "exp_avg", "exp_avg_sq")
            )
            adamw(parameters, gradients, means, squares, [], steps, lr=lr, weight_decay=decay, **SETTINGS)


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
