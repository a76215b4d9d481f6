"""The one loop: both stages, every experiment, one replica or hundreds, one process or many."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from tqdm import tqdm

from structure_first.data.batch import Batch, Source
from structure_first.errors import UserError, reason
from structure_first.model import weights
from structure_first.seeding import generator
from structure_first.training import processes, signals
from structure_first.training.compute import Compute, remove
from structure_first.training.devices import choose_products, flushed
from structure_first.training.optimizer import AdamW, clip
from structure_first.training.predictions import evaluate, micro_batches, predict, short_and_long
from structure_first.training.protocol import AnyModel, Forward, Model, device_of
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

SHOWN = ("loss", "accuracy", "problems")  # beside the progress bar


class Run:
    """The state of one stage: everything a checkpoint holds, whatever computes it.

    A replica that masters its source, or diverges, leaves the program that trains; the others go on, at less cost.
    Under torchrun every process has the whole `model`, and computes its share of a batch. Where the weights are
    sharded, the program is a copy of the model, which waits in the CPU's memory.
    """

    def __init__(self, model: Model, source: Source, stage: Stage, random_key: str, compute: Compute = Compute()):
        self.model, self.source, self.stage, self.random_key, self.compute = model, source, stage, random_key, compute
        settings = dict(stage=asdict(stage), shape=asdict(model.shape), seeds=model.seeds, name=random_key)
        settings |= dict(source=source.name, source_settings=dict(source.settings))
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.step, self.tokens = 0, 0
        self.measurements: list[dict] = []
        self.left_at: list[int | None] = [None] * len(model.seeds)
        self.device, self.sharded = device_of(model), compute.sharded and processes.world_size() > 1
        if self.sharded:
            model.to(torch.device("cpu"))
        self.train_only(list(range(len(model.seeds))))

    def train_only(self, replicas: list[int], state: dict[int, dict[str, Tensor]] | None = None) -> None:
        """Go on with these replicas of the model, and their optimizer's `state`, if there is one."""
        self.training, every = replicas, len(replicas) == len(self.model.seeds)
        self.program = self.model if every and not self.sharded else self.model.pick(replicas)
        remove(self.program)
        self.compute.apply(self.program)
        self.forward: Forward = self.program  # what a training step calls
        if self.sharded:
            self.forward = processes.sharded(self.program, self.device, self.compute.dtype)
        elif processes.world_size() > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.program, gradient_as_bucket_view=True)
        matrices = (part[0].numel() for block in self.model.blocks for part in block.parameters())
        choose_products(len(replicas) * self.stage.batch * self.source.length * max(matrices, default=0))
        self.optimizer = AdamW(list(self.program.parameters()), self.stage)
        if state:
            self.optimizer.load(state)

    def update(self, batch: Batch, source: Source) -> None:
        """One optimizer step of every replica that still trains."""
        self.optimizer.zero_grad()
        with self._seeded():
            self._backward(batch, source)
        if self.stage.clip is not None:
            clip(self.optimizer.parameters, self.stage.clip, self.sharded)
        self.optimizer.step(self.stage.lr_at(self.step))
        self.step += 1
        self.tokens += batch.tokens[0].numel()

    def _backward(self, batch: Batch, source: Source) -> None:
        """The gradients of each replica's mean loss over `batch`, whatever part of it is computed when and where."""
        # The processes' gradients are averaged; a batch may bear no loss.
        count = batch.loss_mask[..., 1:].sum((1, 2)).clamp(min=1) / processes.world_size()
        # A GPU waits to be told how long they are: worth it where most of a sequence may bear no loss.
        uneven = self.device.type == "cpu" or source.window < source.length // 2
        if uneven and processes.world_size() == 1 and not self.compute.micro_batch:
            mine = short_and_long(batch)
        else:
            mine = list(micro_batches(processes.share(batch), self.compute.micro_batch or self.stage.batch))
        copies = self.forward if isinstance(self.forward, nn.parallel.DistributedDataParallel) else None
        for number, part in enumerate(mine, 1):  # copies exchange their gradients once a step, after the last
            with copies.no_sync() if copies and number < len(mine) else nullcontext():
                with self.compute.cast(self.device):
                    predictions = predict(self.forward, part, source.window)
                (predictions.nats() / count).sum().backward()

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Within, what is dropped depends on the seeds, the stage, the step and the process alone."""
        if not self.model.stochastic:
            yield
            return
        key: tuple[int | str, ...] = (*self.model.seeds, self.random_key, "dropout", self.step, processes.rank())
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(generator("cpu", *key).initial_seed())
            yield

    def record(self, metrics: dict[str, Tensor]) -> None:
        """Keep held-out `metrics` of the replicas that train, and let go of those that are done."""
        for number, replica in enumerate(self.training):
            for metric, values in metrics.items():
                row = dict(replica=replica, seed=self.model.seeds[replica], step=self.step, tokens=self.tokens)
                self.measurements.append(row | dict(metric=metric, value=values[number].item()))
            mastered = self.stage.mastery is not None and metrics["accuracy"][number] >= self.stage.mastery
            if mastered or not metrics["loss"][number].isfinite():
                self.left_at[replica] = self.step
        stay = [number for number, replica in enumerate(self.training) if self.left_at[replica] is None]
        if 0 < len(stay) < len(self.training):
            self.write_back()
            state = self.optimizer.state
            for each in state.values():
                each |= {name: processes.whole(tensor)[stay] for name, tensor in each.items() if tensor.ndim}
            self.train_only([self.training[number] for number in stay], state)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the model the weights of the replicas that train."""
        if self.program is not self.model:
            for whole, part in zip(self.model.parameters(), self.program.parameters(), strict=True):
                whole[self.training] = processes.whole(part)

    def close(self) -> None:
        """Leave the model where it was, and computing as it did."""
        remove(self.model)
        self.model.to(self.device)

    @property
    def due(self) -> bool:
        """Whether this step is to be evaluated, and has not been."""
        last = self.measurements[-1]["step"] if self.measurements else -1
        return last < self.step and (self.step % self.stage.evaluate_every == 0 or self.step == self.stage.steps)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or no replica is left that trains."""
        return self.step >= self.stage.steps or None not in self.left_at

    def save(self, path: Path) -> None:
        """Write a checkpoint of whole tensors, in the first process; all must call."""
        self.write_back()
        tensors: dict[str, Tensor] = {f"model.{name}": parameter for name, parameter in self.model.named_parameters()}
        for index, state in self.optimizer.state.items():
            for name, tensor in state.items():
                whole = processes.whole(tensor)
                if processes.is_main():
                    tensors[f"optimizer.{index}.{name}"] = whole
        if processes.is_main():
            meta = {name: getattr(self, name) for name in ("digest", "step", "tokens", "measurements", "left_at")}
            weights.write(path, tensors, meta)

    @torch.no_grad()
    def restore(self, path: Path) -> None:
        """Go on from the checkpoint at `path`; raises `UserError` if it is broken or of another run."""
        try:
            tensors, meta = weights.read(path)
        except weights.BROKEN as error:
            problem = f"cannot read checkpoint {path}: {reason(error)}"
            raise UserError(f"{problem}; delete it to start this run again") from None
        if meta.get("digest") != self.digest:
            raise UserError(f"checkpoint {path} belongs to other settings; delete it, or use those it was made with")
        self.step, self.tokens, self.measurements = meta["step"], meta["tokens"], meta["measurements"]
        self.left_at = meta["left_at"]
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        training = [replica for replica, step in enumerate(self.left_at) if step is None]
        if not training:
            return self.train_only(self.training)
        state: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith("optimizer.")):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensors[key]
        self.train_only(training, state)


def fit(
    model: AnyModel,
    source: Source,
    stage: Stage,
    *,
    random_key: str = "stage 2",
    label: str | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    until: int | None = None,
    watch: Callable[[int, AnyModel], None] | None = None,
    compute: Compute = Compute(),
) -> list[dict]:
    """Train every replica of `model` on `source` in place; returns held-out measurements, a row each.

    Every batch follows from a replica's seed and the `random_key`; the progress bar says `label` instead.

    A replica that reaches `stage.mastery` keeps the weights it had then; training ends once all have, or after
    `stage.steps`. One whose loss is no longer finite ends there, with that loss as its last measurement. With
    `checkpoint`, a killed run goes on from its last one and ends with the same weights, and SIGTERM or Ctrl-C end it
    after a whole step, with one; the file is left for the caller to delete. It also stops after `until` updates, its
    schedule unfinished; called again without, it goes on from there. `watch(step, model)` is called at every
    evaluation. Raises `UserError` on a checkpoint of another run, and where what is held out bears no loss.

    `compute` changes how fast, rounding and, where there is dropout, what is dropped. Within `processes.joined`, all
    processes call this alike: each trains on its share and ends with the same weights and measurements; the first alone
    writes and watches.
    """
    model.train()
    with (
        flushed(),
        closing(Run(model, source, stage, random_key, compute)) as run,
        signals.put_off(bool(checkpoint)) as came,
    ):
        if checkpoint and any(processes.all_reduce_max(checkpoint.exists())):
            run.restore(checkpoint)
        evaluated, held_out_key = source.held_out or source, f"{random_key}, held out"
        held_out = processes.share(Stream(evaluated, stage.held_out, model.seeds, held_out_key, run.device)(0))
        bearing = processes.all_reduce_sum(held_out.loss_mask[..., 1:].sum((1, 2))).tolist()
        if 0 in bearing:
            drawn = f"{evaluated.name} that seed {model.seeds[bearing.index(0)]} draws"
            problem = f"the {stage.held_out:,} held-out sequences of {drawn} bear no loss"
            raise UserError(f"{problem}; raise held_out of the stage, or take longer sequences (a longer context)")
        batches, hidden = None, None if processes.is_main() else True
        saved, started = monotonic(), (monotonic(), run.tokens)
        label = label or random_key
        with tqdm(total=stage.steps, initial=run.step, desc=label, unit="step", leave=False, disable=hidden) as bar:
            while True:
                if checkpoint:
                    signal, due = processes.all_reduce_max(came(), monotonic() - saved > checkpoint_seconds)
                    if signal or due:
                        run.save(checkpoint)
                        saved = monotonic()
                    if signal:
                        raise signals.stop(signal)
                if run.due:
                    mine = Batch(*(tensor[run.training] for tensor in held_out))
                    metrics = evaluate(run.program, mine, source, compute)
                    speed = (run.tokens - started[1]) * len(run.training) / max(1e-9, monotonic() - started[0])
                    means = {name: f"{metrics[name].mean().item():.3f}" for name in SHOWN if name in metrics}
                    bar.set_postfix(means | {"seeds": len(run.training), "tokens/s": f"{speed:,.0f}"})
                    started = monotonic(), run.tokens
                    run.record(metrics)
                    if watch:
                        run.write_back()
                        if processes.is_main():
                            watch(run.step, model)
                if run.finished or (until is not None and run.step >= until):
                    break
                length = stage.length_at(run.step, source.length_setting)
                seeds = run.program.seeds
                if batches is None or (batches.source.length_setting, batches.seeds) != (length, seeds):
                    batches = Stream(source.at(length), stage.batch, seeds, random_key, run.device)
                run.update(batches(run.step), batches.source)
                bar.update()
        run.write_back()
        if checkpoint:
            run.save(checkpoint)
            if signal := max(processes.all_reduce_max(came())):
                raise signals.stop(signal)  # it came with the last step; what follows this stage shall not begin
    return run.measurements
