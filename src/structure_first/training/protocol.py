"""What the loop asks of a model, so that one of another library can be trained by it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@runtime_checkable  # the tests hold calls to their annotations
class Forward(Protocol):
    """What makes logits of tokens: a model, or what stands for it where several processes train."""

    def __call__(
        self, tokens: Int[Tensor, "replica batch time"], at: Int[Tensor, "replica batch n"] | None = None
    ) -> Float[Tensor, "replica batch n vocab"]:
        """Logits of the next token at the positions `at`, or at all. No token may change those of an earlier one."""


@runtime_checkable
class Model(Forward, Protocol):
    """Replicas of one network that train side by side: theirs is the first axis of every parameter and of every batch.

    `parameters` and what follows is as in a `torch.nn.Module`; what several processes train has to be one.
    """

    @property
    def seeds(self) -> Sequence[int]:
        """Of each replica, whose batches follow from it."""

    @property
    def shape(self) -> "DataclassInstance":
        """What a checkpoint must agree with."""

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """What is compiled, recomputed and spread over processes one by one; may be empty."""

    @property
    def stochastic(self) -> bool:
        """Whether it draws random numbers while it trains, as dropout does."""

    def pick(self, replicas: Sequence[int]) -> Self:
        """Those replicas alone, copied into a model of their own."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...

    def to(self, device: torch.device) -> Self: ...


AnyModel = TypeVar("AnyModel", bound=Model)


def device_of(model: Model) -> torch.device:
    """Where the model's first parameter is."""
    return next(iter(model.parameters())).device
