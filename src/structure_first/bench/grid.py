"""The replica program of a cell of the grid against one model at a time, and against transformers and its `Trainer`.

All train the same stage two, of random initialisation on reversed addition: the same batches of 64 from the same
stream, the same width of 16, float32, AdamW, clipping and rates, and neither evaluate, save nor log. The trainer is
given ready batches on the device, its model keeps no cache, and its start-up is not counted: seconds run from the end
of a step early in each `train()` to the end of its last. All else of it is as its defaults are.

On a CPU the grid trains in as many processes as there are cores, each with one thread and its share of the replicas;
that is the contender called "a process a core". On CUDA it is one program.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, TimedSteps
from structure_first.data.batch import Batch
from structure_first.experiments import skills
from structure_first.machine import cores
from structure_first.model.transformer import Transformer
from structure_first.model.weights import to_hf
from structure_first.runs.budget import bytes_of
from structure_first.runs.jobs import Job
from structure_first.training.devices import device, settle
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, Trainer

TARGET_ONE, TARGET_TRAINER = 3.0, 50.0
LEAD = 3  # steps of each `train()` before the clock starts
CELL = "reversed_addition / random init"


def program(replicas: int, scale: str = "laptop", device: str = "auto") -> Job:
    """So many replicas of a cell of the grid as one program; no file of it is ever read or written."""
    return Job.of(CELL, skills.EXPERIMENT.recipes(scale)[CELL], range(replicas), Path(), device)


def ours(scale: str, replicas: int) -> TimedSteps:
    """Steps of the grid's program."""
    job = program(replicas, scale)
    return harness.updates(Transformer(job.shape, job.seeds).to(device()), job.source, job.phase.stage)


def peers(scale: str) -> TimedSteps:
    """Steps of the `Trainer` for one model."""
    job = program(1, scale)
    of, stage = job.source, job.phase.stage
    batches = map(Stream(of, stage.batch, job.seeds, "bench", device()), count())
    model = to_hf(Transformer(replace(job.shape, context=of.length), job.seeds))

    def take(steps: int) -> float:
        stamps = {}

        def stamp(step: int) -> None:
            if step in (LEAD, LEAD + steps):
                settle()
                stamps[step] = perf_counter()

        trainer(model, stage, batches, LEAD + steps, stamp).train()
        return stamps[LEAD + steps] - stamps[LEAD]

    return take


def trainer(
    model: "GPT2LMHeadModel", stage: Stage, batches: Iterator[Batch], steps: int, stamp: Callable[[int], None]
) -> "Trainer":
    """A `Trainer` that makes `steps` steps, one for each of `batches`; it calls `stamp(step)` as each has ended."""
    harness.quiet_transformers()
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Ready(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for batch in batches:
                tokens, loss_mask = (tensor[0] for tensor in batch)
                yield {"input_ids": tokens, "labels": tokens.masked_fill(~loss_mask, -100)}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            stamp(state.global_step)

    model.config.use_cache = False
    arguments = TrainingArguments(
        output_dir=gettempdir(),  # nothing is written to it
        max_steps=steps,
        per_device_train_batch_size=1,  # each of which is a ready batch
        learning_rate=stage.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip or 0.0,  # which clips nothing
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,  # they are on the device
        accelerator_config={"dispatch_batches": False},  # there is one process
        use_cpu=device().type == "cpu",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one device, as ours
    peer = Trainer(model, arguments, lambda ready: ready[0], train_dataset=Ready(), callbacks=[Clock()])
    peer.remove_callback(PrinterCallback)
    return peer


def report(sizes: Sizes, ratios: Ratios) -> None:
    cuda, job = device().type == "cuda", program(1, sizes.scale)
    models = sizes.models_on_cuda if cuda else sizes.models
    print(f"\nThe grid: {job.phase.label}, batch {job.phase.stage.batch}, width {job.shape.width}, on {device().type}")
    if not cuda:
        print("targets are stated for two cores, and against the Trainer for an H100-class GPU only")
    one, peer = Contender(partial(ours, replicas=1)), Contender(peers)
    contenders = {"one": one, "peer": peer, **harness.programs(ours, models, split=not cuda)}
    cases = [(sizes.scale, threads) for threads in ([cores()] if cuda else sorted({1, cores()}))]
    against_one, against_trainer = [], []
    for (_, threads), of_case in zip(cases, harness.compare(contenders, cases, sizes), strict=True):
        alone, theirs = of_case.pop("one"), of_case.pop("peer")
        for name, mine in of_case.items():
            case, what = (name, f"{threads}"), f"grid, {name}, {threads} threads"
            target = TARGET_ONE if threads == cores() and not cuda else None
            against_one.append(case + ratios.judged(f"{what}: one at a time", mine, alone, target))
            target = TARGET_TRAINER if cuda else None
            against_trainer.append(case + ratios.judged(f"{what}: Trainer", mine, theirs, target))
    for name, lines in (("one at a time", against_one), ("Trainer", against_trainer)):
        head = ["", "threads", f"{models} models", name, "target", "met", "ratio, median (range)"]
        harness.table(f"Models times steps a second, {models} models against {name}", head, lines)
    print(f"  memory of a replica, as a plan counts it: {bytes_of(job) / 1e6:.2f} MB")
