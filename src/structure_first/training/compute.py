"""How a stage is computed, apart from what it trains: a run may go on under another `Compute`."""

from dataclasses import dataclass

from structure_first.errors import UserError, unknown

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Compute:
    """What a machine makes of a stage; none of it changes what is trained, but for rounding."""

    precision: str = "float32"  # or bfloat16: weights stay float32, products are taken in bfloat16 (autocast)
    compile: bool = False  # the blocks, by torch.compile
    recompute: bool = False  # a block's activations in the backward pass, instead of keeping them
    micro_batch: int | None = None  # sequences of a replica that a process computes at once; None: all it has
    sharded: bool = False  # under torchrun: weights and optimizer spread over the processes (FSDP2), not copied (DDP)

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.micro_batch is not None and self.micro_batch < 1:
            raise UserError(f"micro_batch must be 1 or more sequences, not {self.micro_batch}; leave it out for all")
