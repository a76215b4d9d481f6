"""The settings of one stage of training, and its learning rate at every step."""

import math
from dataclasses import dataclass

from structure_first.errors import UserError, check_known

SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}

MOST = dict(steps=1 << 53, batch=1 << 24, held_out=1 << 24, evaluate_every=1 << 53)  # steps stay exact as floats
STRONGEST = 1000  # rate and decay


@dataclass(frozen=True)
class Stage:
    """How one stage trains; the defaults are the diagnostics' (reference: Jiang et al. 2026, algorithmic tasks).

    Raises `UserError` for a setting out of range.
    """

    steps: int = 10_000  #: updates
    batch: int = 1_000  #: sequences a step, for each replica
    lr: float = 1e-3  #: the highest rate
    warmup: int = 500  #: steps of linear warm-up
    schedule: str = "cosine"  #: of the rate after the warm-up: constant, linear or cosine
    floor: float = 0.0  #: the rate at the end, as a share of `lr`
    weight_decay: float = 1e-3  #: AdamW's: a step shrinks the weights by so much of the rate
    decay_vectors: bool = True  #: whether norms and biases decay too
    clip: float | None = 1.0  #: the largest gradient norm of a replica
    held_out: int = 1_000  #: sequences, drawn once for each seed and never trained on
    evaluate_every: int = 250  #: steps
    mastery: float | None = None  #: held-out accuracy at which a replica stops
    curriculum: tuple[int, ...] = ()  #: shorter lengths first, in equal shares of the first half of the steps

    def __post_init__(self):
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be 1 or more, and at most {most:,}, not {getattr(self, name)}")
        check_known("schedule", self.schedule, SCHEDULES)
        if not 0 <= self.warmup <= self.steps:
            raise UserError(f"warmup must lie between 0 and the {self.steps} steps, not {self.warmup}")
        if not 0 <= self.weight_decay <= STRONGEST or not (self.clip is None or 0 < self.clip < math.inf):
            given, limits = f"{self.weight_decay}, {self.clip}", f"the one is at most {STRONGEST}, the other finite"
            raise UserError(f"weight_decay must be 0 or more and clip above 0, or null for none, not {given}; {limits}")
        if self.mastery is not None and not 0 < self.mastery <= 1:
            raise UserError(f"mastery must be an accuracy above 0 and at most 1, not {self.mastery}")
        if not 0 < self.lr <= STRONGEST or not 0 <= self.floor <= 1:
            limits = f"lr must be above 0, at most {STRONGEST}, and floor a share from 0 to 1"
            raise UserError(f"{limits}, not {self.lr}, {self.floor}")

    @property
    def sequences(self) -> int:
        """How many each replica reads."""
        return self.steps * self.batch

    def first(self, part: float) -> int:
        """How many updates that part of them is."""
        return max(1, round(part * self.steps))

    def lr_at(self, step: int) -> float:
        """The learning rate of the update that follows `step` finished ones."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.floor + (1.0 - self.floor) * SCHEDULES[self.schedule](done))

    def length_at(self, step: int, full: int | None) -> int | None:
        """The source's length setting at `step`: the curriculum's, then `full`."""
        rung = step * 2 * len(self.curriculum) // self.steps
        return self.curriculum[rung] if rung < len(self.curriculum) else full
