"""The one loop: both stages, every experiment, one replica or hundreds."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from structure_first.data.batch import Batch, Source
from structure_first.errors import UserError
from structure_first.model.transformer import Transformer
from structure_first.training import checkpoints
from structure_first.training.devices import choose_products
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream


class Predictions(NamedTuple):
    """The positions of a batch that may bear loss: what the model says there, and what stands there."""

    logits: Float[Tensor, "replica batch n vocab"]
    targets: Int[Tensor, "replica batch n"]
    mask: Bool[Tensor, "replica batch n"]  # which of them do

    def nats(self) -> Float[Tensor, " replica"]:
        """The summed loss of each replica."""
        loss = F.cross_entropy(self.logits.flatten(0, 2), self.targets.flatten(), reduction="none")
        return (loss.view(self.targets.shape) * self.mask).sum((1, 2))

    def count(self) -> Int[Tensor, " replica"]:
        return self.mask.sum((1, 2))


def predict(model: Transformer, batch: Batch, source: Source) -> Predictions:
    """What the model says of `batch`; only the window that bears loss is computed to the end."""
    inputs, targets, mask, at = batch.tokens[..., :-1], batch.tokens[..., 1:], batch.loss_mask[..., 1:], None
    if source.window < inputs.shape[-1]:
        first = mask.byte().argmax(-1, keepdim=True).clamp(max=inputs.shape[-1] - source.window)
        at = first + torch.arange(source.window, device=first.device)
        targets, mask = targets.gather(-1, at), mask.gather(-1, at)
    return Predictions(model(inputs, at), targets, mask)


@torch.no_grad()
def evaluate(model: Transformer, batch: Batch, source: Source, share: int = 500) -> dict[str, Tensor]:
    """Loss (nats a token) and accuracy of each replica, `share` sequences at a time.

    Accuracy counts the positions that bear loss and whose token the ones before determine.
    """
    model.eval()
    parts = []
    for start in range(0, batch.tokens.shape[1], share):
        found = predict(model, Batch(*(tensor[:, start : start + share] for tensor in batch)), source)
        graded = found.mask if source.determined is None else found.mask & source.determined(found.targets)
        right = (found.logits.argmax(-1) == found.targets) & graded
        parts.append((found.nats(), found.count(), right.sum((1, 2)), graded.sum((1, 2))))
    model.train()
    nats, count, right, graded = (torch.stack(column).sum(0) for column in zip(*parts, strict=True))
    loss, accuracy = nats / count, right / graded
    return {"loss": loss, "accuracy": accuracy.where(loss.isfinite(), torch.nan)}


def clip(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale each replica's gradient to a norm of `limit` at most; a replica gone to NaN spoils no other."""
    gradients = [parameter.grad.flatten(1) for parameter in parameters]
    if len(gradients[0]) == 1:
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (limit / norm).clamp(max=1.0))
    else:
        norm = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients]).norm(dim=0)
        torch._foreach_mul_(gradients, [(limit / norm).clamp(max=1.0)[:, None]] * len(gradients))


class Run:
    """The state of one stage: everything a checkpoint holds.

    A replica that masters its source, or diverges, leaves the program that trains; the others go on, at less cost.
    """

    def __init__(self, model: Transformer, source: Source, stage: Stage, name: str):
        self.model, self.source, self.stage = model, source, stage
        settings = dict(stage=asdict(stage), shape=asdict(model.shape), seeds=model.seeds, name=name)
        settings |= dict(source=source.name, source_settings=dict(source.settings))
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.step, self.tokens = 0, 0
        self.measurements: list[dict] = []
        self.left_at: list[int | None] = [None] * model.replicas
        self.training = list(range(model.replicas))
        self.program, self.optimizer = model, self._optimizer(model)

    def _optimizer(self, program: Transformer) -> torch.optim.AdamW:
        stage, shape = self.stage, program.shape
        choose_products(program.replicas * stage.batch * self.source.length * 4 * shape.width**2)
        return torch.optim.AdamW(program.parameters(), lr=stage.rate, weight_decay=stage.weight_decay, fused=True)

    def update(self, batch: Batch, source: Source) -> None:
        """One optimizer step of every replica that still trains."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.rate_at(self.step)
        self.optimizer.zero_grad()
        found = predict(self.program, batch, source)
        (found.nats() / found.count()).sum().backward()
        if self.stage.clip is not None:
            clip(self.optimizer.param_groups[0]["params"], self.stage.clip)
        self.optimizer.step()
        self.step += 1
        self.tokens += batch.tokens[0].numel()

    def record(self, metrics: dict[str, Tensor]) -> None:
        """Keep held-out `metrics` of the replicas that train, and let go of those that are done."""
        for number, replica in enumerate(self.training):
            for metric, values in metrics.items():
                row = dict(replica=replica, seed=self.model.seeds[replica], step=self.step, tokens=self.tokens)
                self.measurements.append(row | dict(metric=metric, value=values[number].item()))
            mastered = self.stage.mastery is not None and metrics["accuracy"][number] >= self.stage.mastery
            if mastered or not metrics["loss"][number].isfinite():
                self.left_at[replica] = self.step
        self.write_back()
        stay = [number for number, replica in enumerate(self.training) if self.left_at[replica] is None]
        if 0 < len(stay) < len(self.training):
            state = {
                index: {name: tensor[stay] if tensor.ndim else tensor for name, tensor in each.items()}
                for index, each in self.optimizer.state_dict()["state"].items()
            }
            self.train_only([self.training[number] for number in stay], state)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the model the weights of the replicas that train."""
        if self.program is not self.model:
            for whole, part in zip(self.model.parameters(), self.program.parameters(), strict=True):
                whole[self.training] = part

    def train_only(self, replicas: list[int], state: dict[int, dict[str, Tensor]]) -> None:
        """Go on with these replicas of the model, and their optimizer's `state`."""
        self.training = replicas
        self.program = self.model if len(replicas) == self.model.replicas else self.model.pick(replicas)
        self.optimizer = self._optimizer(self.program)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    @property
    def due(self) -> bool:
        """Whether this step is to be evaluated, and has not been."""
        last = self.measurements[-1]["step"] if self.measurements else -1
        return last < self.step and (self.step % self.stage.evaluate_every == 0 or self.step == self.stage.steps)

    @property
    def finished(self) -> bool:
        return self.step >= self.stage.steps or None not in self.left_at

    def save(self, path: Path) -> None:
        self.write_back()
        tensors = {f"model.{name}": parameter for name, parameter in self.model.named_parameters()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        meta = {name: getattr(self, name) for name in ("digest", "step", "tokens", "measurements", "left_at")}
        checkpoints.save(path, tensors, meta)

    @torch.no_grad()
    def restore(self, path: Path) -> None:
        """Go on from the checkpoint at `path`; raises `UserError` if it is of another run."""
        tensors, meta = checkpoints.load(path)
        if meta["digest"] != self.digest:
            raise UserError(f"checkpoint {path} belongs to other settings; delete it, or use those it was made with")
        self.step, self.tokens, self.measurements = meta["step"], meta["tokens"], meta["measurements"]
        self.left_at = meta["left_at"]
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        if self.finished:
            return
        state: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith("optimizer.")):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensors[key]
        self.train_only([replica for replica, step in enumerate(self.left_at) if step is None], state)


def fit(
    model: Transformer,
    source: Source,
    stage: Stage,
    *,
    name: str = "stage 2",
    label: str | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    watch: Callable[[int, Transformer], None] | None = None,
) -> list[dict]:
    """Train every replica of `model` on `source` in place; returns held-out measurements, a row each.

    Every batch follows from a replica's seed and the stage's `name`; `label` is what the progress bar says instead.

    A replica that reaches `stage.mastery` keeps the weights it had then; training ends once all have, or after
    `stage.steps`. One whose loss is no longer finite ends there, with that loss as its last measurement. With
    `checkpoint`, a killed run goes on from its last one and ends with the same weights; the file is left for the caller
    to delete. `watch(step, model)` is called at every evaluation. Raises `UserError` on a checkpoint of another run.
    """
    device = model.position.device
    run = Run(model, source, stage, name)
    held_out = Stream(source.held_out or source, stage.held_out, model.seeds, f"{name}, held out", device)(0)
    if checkpoint and checkpoint.exists():
        run.restore(checkpoint)
    stream, saved, started = None, monotonic(), (monotonic(), run.tokens)
    model.train()
    with tqdm(total=stage.steps, initial=run.step, desc=label or name, unit="step", disable=None, leave=False) as bar:
        while True:
            if run.due:
                metrics = evaluate(run.program, Batch(*(tensor[run.training] for tensor in held_out)), source)
                speed = (run.tokens - started[1]) * len(run.training) / max(1e-9, monotonic() - started[0])
                shown = {metric: f"{values.mean().item():.3f}" for metric, values in metrics.items()}
                bar.set_postfix(shown | {"seeds": len(run.training), "tokens/s": f"{speed:,.0f}"})
                started = monotonic(), run.tokens
                run.record(metrics)
                if watch:
                    watch(run.step, model)
            if run.finished:
                break
            if checkpoint and monotonic() - saved > checkpoint_seconds:
                run.save(checkpoint)
                saved = monotonic()
            length = stage.length_at(run.step, source.settings.get("length"))
            if stream is None or (stream.source.settings.get("length"), stream.seeds) != (length, run.program.seeds):
                stream = Stream(source.at(length), stage.batch, run.program.seeds, name, device)
            run.update(stream(run.step), stream.source)
            bar.update()
    if checkpoint:
        run.save(checkpoint)
    return run.measurements
