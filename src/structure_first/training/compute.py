"""How a stage is computed, apart from what it trains: a run may go on under another `Compute`."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from structure_first.errors import UserError, check_known
from structure_first.training.protocol import Model

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Compute:
    """What a machine makes of a stage; it changes rounding and, where there is dropout, what is dropped."""

    precision: str = "float32"  #: or bfloat16: weights stay float32, products are taken in bfloat16 (autocast)
    compile: bool = False  #: the blocks, by torch.compile
    recompute: bool = False  #: a block's activations in the backward pass, instead of keeping them
    micro_batch: int | None = None  #: sequences of a replica that a process computes at once; None: all it has
    sharded: bool = False  #: under torchrun: weights and optimizer spread over the processes (FSDP2), not copied (DDP)

    def __post_init__(self):
        check_known("precision", self.precision, PRECISIONS)
        if self.micro_batch is not None and self.micro_batch < 1:
            raise UserError(f"micro_batch must be 1 or more sequences, not {self.micro_batch}; leave it out for all")

    @property
    def dtype(self) -> torch.dtype | None:
        """What products are taken in, where it is not what they are in anyway."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    def cast(self, device: torch.device) -> AbstractContextManager:
        """Within, the model computes in the precision that was asked for."""
        return torch.autocast(device.type, self.dtype) if self.dtype else nullcontext()

    def apply(self, model: Model) -> None:
        """Compile the blocks of `model`, or have them recompute, as was asked for; `remove` undoes it."""
        for block in model.blocks:
            if self.compile:
                block.forward = torch.compile(block.forward)
            if self.recompute:
                block.forward = partial(
                    checkpoint, block.forward, use_reentrant=False, preserve_rng_state=model.stochastic
                )


def remove(model: Model) -> None:
    """Give the blocks of `model` their own forward pass back."""
    for block in model.blocks:
        vars(block).pop("forward", None)
