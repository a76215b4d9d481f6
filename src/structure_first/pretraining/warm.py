"""Stage one for a model of one's own: any causal language model of `transformers`, trained on a source in place.

Its embeddings and head are set aside meanwhile; attention, MLPs, norms and positions are left as stage one made them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structure_first.cost import memory
from structure_first.cost.hours import seconds_of, timed_update
from structure_first.data import registry
from structure_first.data.batch import Batch, Source
from structure_first.errors import UserError, check_known
from structure_first.evidence.statistics import LEARNT
from structure_first.model.causal import Causal, fresh, lent_vocabulary, vocabulary
from structure_first.seeding import generator
from structure_first.training.compute import Compute
from structure_first.training.devices import enough_memory, keep_freed_memory
from structure_first.training.loop import fit
from structure_first.training.predictions import predict
from structure_first.training.protocol import device_of
from structure_first.training.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Jiang et al. 2026, semantic stage, at most; it ends once the source is learnt.
STAGE = Stage(steps=2_500, batch=64, lr=5e-4, warmup=100, schedule="constant", weight_decay=0.1, mastery=0.99)
WIDTH, FASTEST = 768, 3e-3  # the rate is for that width; Adam's best goes as one over it
EMBEDDINGS = {"keep": "as they were", "fresh": "drawn anew"}
TIMED = 1_024  # tokens, of which an update is timed first


@dataclass(frozen=True)
class Warmed:
    """What stage one came to."""

    source: Source
    embeddings: str
    accuracy: float  #: held out, of the tokens that the ones before determine
    loss: float  #: nats a token
    updates: int
    tokens: int
    seconds: float

    @property
    def learnt(self) -> bool | None:
        """Whether there is something to carry over; None of a mixture, some of whose tokens nothing may tell of."""
        return None if "+" in self.source.name else self.accuracy >= LEARNT

    def __str__(self) -> str:
        words = {True: "was learnt", False: "was NOT learnt", None: "may be learnt (its accuracy is over all tokens)"}
        spent = f"{self.updates:,} updates, {self.tokens:,} tokens, {self.seconds / 60:,.1f} minutes"
        advice = (
            "an unlearnt stage one transfers nothing: load the model again; more steps, another lr, a shorter length?"
        )
        lines = [
            f"stage one  {self.source.name} {words[self.learnt]}: held-out accuracy {self.accuracy:.3f} after {spent}",
            *([advice] if self.learnt is False else ()),
            f"the model's own embeddings and head are back, {EMBEDDINGS[self.embeddings]}",
        ]
        return "\n           ".join(lines)


def warm_up(
    model: "PreTrainedModel",
    source: Source | str,
    *,
    seed: int = 0,
    embeddings: str = "keep",
    compute: Compute = Compute(),
    checkpoint: Path | None = None,
    say: Callable[[str], object] = print,
    **stage: Any,
) -> Warmed:
    """Train `model` on a source in place, with embeddings and a head of its own; the same seed gives the same weights.

    `model` is a causal language model of `transformers` in float32, where it is to be trained; it computes as in
    evaluation, so nothing is dropped. `source` is one of `data.registry.source`, or its name. Afterwards the model's
    embeddings and head are the very parameters that they were (`embeddings="keep"`): fresh ones of a fresh model, its
    own of a pretrained one, which the changed body has yet to get used to; `"fresh"` draws them anew from the seed.
    `stage` changes fields of `Stage`: steps, batch, lr (by default 5e-4 at width 768, and as one over the width), ...
    What it takes is told to `say` before, and what it came to after; at which sizes a front was worth it the ledger
    tells, which `structure-first warm` prints. With `checkpoint`, a killed run goes on.

    Raises `UserError` before the model is touched where it, the source or a setting will not do; and where the loss is
    no longer finite: load the model again then.
    """
    data = registry.source(source) if isinstance(source, str) else source
    stage_one = stage_for(model, data, **stage)
    check_known("rule for embeddings", embeddings, EMBEDDINGS)
    keep_freed_memory()
    otherwise = UserError("stage one needs more memory than there is; lower micro_batch or batch")
    with enough_memory(otherwise), lent_vocabulary(model, data.vocab, seed) as replica:
        say(cost(replica, data, stage_one, compute))
        began = monotonic()
        label = f"stage 1: {data.name}"
        rows = fit(replica, data, stage_one, random_key="stage 1", label=label, checkpoint=checkpoint, compute=compute)
    last = {row["metric"]: row["value"] for row in rows}
    if not last["accuracy"] >= 0:
        if checkpoint:
            checkpoint.unlink(missing_ok=True)  # it would refuse the lower rate
        raise UserError(f"stage one's loss is no longer finite after {rows[-1]['step']:,} updates; lower its lr")
    if embeddings == "fresh":
        with torch.no_grad():
            for table, drawn in fresh(model, seed).items():
                table.copy_(drawn)
    warmed = Warmed(
        data,
        embeddings,
        last["accuracy"],
        last["loss"],
        updates=rows[-1]["step"],
        tokens=rows[-1]["tokens"],
        seconds=monotonic() - began,
    )
    say(str(warmed))
    return warmed


def stage_for(model: "PreTrainedModel", source: Source, **changes: Any) -> Stage:
    """How the model is trained on the source, unless `changes` says otherwise; raises `UserError` if it cannot be."""
    width = vocabulary(model)[0].weight.shape[-1]
    for name in changes:
        check_known("setting of stage one", name, Stage.__dataclass_fields__)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or source.length
    if source.length - 1 > context:
        problem = f"{source.name} has sequences of {source.length:,} tokens, the model a context of {context:,}"
        raise UserError(f"{problem}; give the source a shorter length")
    steps = changes.get("steps", STAGE.steps)
    shown = dict(warmup=min(STAGE.warmup, steps // 2), evaluate_every=max(1, min(100, steps // 5)))
    return replace(STAGE, **{"lr": min(FASTEST, STAGE.lr * WIDTH / width), **shown, **changes})


def cost(replica: Causal, source: Source, stage: Stage, compute: Compute) -> str:
    """What stage one takes at most, in a line: it ends once the source is learnt. Raises `UserError` where this machine
    has not the memory.
    """
    device, weights = device_of(replica), sum(4 * each.numel() for each in replica.parameters())
    one, two = (batch_of(source, count, device) for count in (1, 2))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        predict(replica, one, source.window)  # other kernels are not counted everywhere
    flops = 3 * counter.get_total_flops() * stage.sequences
    with compute.cast(device):
        one_peak, two_peak = (memory.peak(replica, batch, source.window) for batch in (one, two))
    at_once = min(stage.batch, compute.micro_batch or stage.batch)
    by_use: dict[str, float] = {"weights": weights, "gradients": weights, "AdamW": 2 * weights}
    by_use["activations"] = one_peak + (at_once - 1) * (two_peak - one_peak)
    missing, usable = sum(by_use.values()) - weights, memory.usable_memory(device)
    if missing > usable:
        problem = f"stage one needs {missing / 1e9:,.1f} GB more, {usable / 1e9:,.1f} GB can be used"
        fits = at_once + int((usable - missing) // (two_peak - one_peak))
        raise UserError(f"{problem}; {f'micro_batch {fits} would fit' if fits > 0 else 'take a smaller model'}")
    seconds = timed(replica, source, stage, compute) if missing + weights <= usable else None
    minutes = "minutes unknown" if seconds is None else f"about {seconds * stage.steps / 60:,.1f} minutes"
    counted = f"{stage.steps:,} updates, {stage.sequences * source.length:,} tokens, {flops / 1e15:.3g} PFLOPs"
    uses = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in by_use.items())
    whole = f"{sum(by_use.values()) / 1e9:.2g} GB ({uses})"
    return f"stage one  {source.name}: at most {counted}, {minutes}; {whole}"


def batch_of(source: Source, count: int, device: torch.device) -> Batch:
    return Batch(*(tensor[None] for tensor in source.draw(count, generator(device, 0, "cost"))))


def timed(replica: Causal, source: Source, stage: Stage, compute: Compute) -> float:
    """Seconds of an update: of one of few sequences, or of all where that is quick. A copy of the model is trained."""
    for batch in (min(stage.batch, max(1, TIMED // source.length)), stage.batch):
        update = timed_update(replica.pick([0]), source, replace(stage, batch=batch), compute)
        seconds = seconds_of(update) * stage.batch / batch
        if seconds > 1:
            break
    return seconds
