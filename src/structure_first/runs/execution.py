"""The training of a job: its rows, a manifest for each of its cells, and the weights that it keeps."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import pandas as pd
import torch

from structure_first.cost import flops
from structure_first.errors import UserError
from structure_first.evidence.store import environment
from structure_first.model import weights
from structure_first.model.transformer import Transformer
from structure_first.runs.jobs import Job, initial_model, trained, weights_path
from structure_first.runs.recipe import digest, plain
from structure_first.training import processes
from structure_first.training.devices import choose_products, keep_freed_memory, one_thread, out_of_memory
from structure_first.training.devices import device as pick_device
from structure_first.training.loop import fit
from structure_first.training.predictions import evaluate
from structure_first.training.stream import Stream


@torch.no_grad()
def mastery(job: Job) -> list[dict]:
    """Measurements of what stage one left to each replica, at step 0 of the stage two that starts from it.

    How well it was learnt; and the root mean square of its embeddings' mean row, of the rows about that, and of its
    positions.
    """
    rows = []
    for indices, replicas in job.by_recipe():
        if before := [replica.before for replica in replicas if replica.before]:
            phase, model = before[0].phase, trained(before, job.folder)
            source = phase.make()
            held_out = Stream(source, phase.stage.held_out, [each.seed for each in before], "mastery")(0)
            mean = model.embedding.mean(1, keepdim=True)
            tables = {"mean row": mean, "rows": model.embedding - mean, "positions": model.position}
            measured = {f"rms {name}": table.square().mean((1, 2)).sqrt() for name, table in tables.items()}
            measured["mastery"] = evaluate(model, held_out, source)["accuracy"]
            rows += [
                {"replica": index, "value": value, "step": 0, "tokens": 0, "metric": metric}
                for metric, values in measured.items()
                for index, value in zip(indices, values.tolist(), strict=True)
            ]
    return rows


def execute(
    job: Job,
    watch: Callable[[int, Transformer], None] | None = None,
    before_training: Callable[[Job], list[dict]] = lambda job: [],
) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Train one job, from its checkpoint if there is one, and keep its weights: its rows, and a manifest for each cell.

    The rows begin with what `before_training` measures. The checkpoint is left for the caller to delete, once they are
    stored; a part of a job keeps no weights but that. Within `processes.joined`, all processes call this alike; the
    first alone writes.
    """
    keep_freed_memory()
    choose_products(0)  # as in a fresh process, whatever was trained in this one before
    began, source, stage = time.monotonic(), job.source, job.phase.stage
    model, compute = initial_model(job).to(pick_device(job.device)), job.compute
    rows = fit(
        model,
        source,
        stage,
        random_key=f"stage {job.replicas[0].recipe.stage}",  # it seeds the batches: alike in all cells
        label=job.name,
        checkpoint=job.checkpoint,
        until=job.until,
        watch=watch,
        compute=compute,
    )
    if job.whole and processes.is_main():
        for index, replica in enumerate(job.replicas):
            weights.save(weights_path(replica, job.folder), model, index)
    frame = pd.DataFrame(before_training(job) + rows).assign(stage=job.stage)
    spent = {step: flops.spent(stage, source, model.shape, step) for step in set(frame["step"])}
    frame["flops"] = frame["step"].map(spent)
    for column in ("cell", "seed"):
        frame[column] = [getattr(job.replicas[index], column) for index in frame["replica"]]
    seconds, runs = round(time.monotonic() - began, 1), {}
    for cell, of_cell in groupby(job.replicas, key=lambda replica: replica.cell):
        group = list(of_cell)
        run = digest([replica.key for replica in group])
        frame.loc[frame["cell"] == cell, "run"] = run
        runs[run] = {
            "recipe": plain(group[0].recipe),
            "stage": job.stage,
            "source": {"name": source.name, **source.settings},  # of a packed corpus, its tokens and their digest
            "configuration": group[0].configuration,
            "seeds": [replica.seed for replica in group],
            "seconds": seconds,  # of the program, since it was last started
            "replicas": len(job.replicas),  # of the program
            "precision": compute.precision,
            **environment(),
        }
    return frame.drop(columns="replica"), runs


@one_thread()
def execute_or_split(
    job: Job, say: Callable[[str], None], watch: Callable[[int, Transformer], None] | None = None
) -> list[tuple[Job, pd.DataFrame, dict[str, dict]]]:
    """Execute an experiment's job, in halves of halves where the memory is too small for it, and say so."""
    try:
        return [(job, *execute(job, watch, mastery))]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(job.replicas) == 1:
            raise UserError(f"{job.name}: one model alone needs more memory than there is; lower the batch") from None
    say(f"{job.name}: {len(job.replicas)} replicas need more memory than there is; training them as two programs")
    middle = len(job.replicas) // 2
    halves = [replace(job, replicas=half) for half in (job.replicas[:middle], job.replicas[middle:])]
    return [done for half in halves for done in execute_or_split(half, say, watch)]
