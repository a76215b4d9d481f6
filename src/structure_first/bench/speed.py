"""What a training program costs on this machine: by the number of its replicas, and by operator."""

from pathlib import Path

import pandas as pd
import torch

from structure_first.cost.hours import seconds_of
from structure_first.cost.memory import usable_memory
from structure_first.experiments import skills
from structure_first.runs.budget import bytes_of, update_of
from structure_first.runs.jobs import Job
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import out_of_memory, settle

CELL = "reversed_addition / random init"


def program(replicas: int, scale: str = "laptop", device: str = "auto") -> Job:
    """So many replicas of a cell of the grid as one program; no file of it is ever read or written."""
    return Job.of(CELL, skills.EXPERIMENT.recipes(scale)[CELL], range(replicas), Path(), device)


def by_replicas(
    largest: int = 128, scale: str = "laptop", device: str = "auto", longest: float = 2.0, spend: float = 0.5
) -> pd.DataFrame:
    """Seconds a step and memory a replica for 1, 2, 4 ... `largest` replicas, with torch's present threads.

    It ends early where a step takes more than `longest` seconds or the next program would not fit into free memory.
    `spend` seconds of updates are timed for each. "counted" memory is what a plan reckons with; "peak", on CUDA, is
    what torch allocated at most.
    """
    where, lines, replicas = pick_device(device), [], 1
    counted = bytes_of(program(1, scale, device))
    while replicas <= largest and replicas * counted < usable_memory(where):
        try:
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            seconds = seconds_of(update_of(program(replicas, scale, device)), spend)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        line = {"replicas": replicas, "seconds a step": seconds, "models x steps a second": replicas / seconds}
        line["MB a replica, counted"] = counted / 1e6
        if where.type == "cuda":
            line["MB a replica, peak"] = (torch.cuda.max_memory_allocated() - before) / replicas / 1e6
        lines.append(line)
        if seconds > longest:
            break
        replicas *= 2
    return pd.DataFrame(lines).set_index("replicas")


def profiled(job: Job, updates: int = 5, largest: int = 8) -> pd.DataFrame:
    """The operators that an update of the job spends most time in, as torch's own profiler counts it; the last line is
    all of them. What an operator calls within counts for what was called.
    """
    update = update_of(job)
    update()
    with torch.profiler.profile(activities=torch.profiler.supported_activities()) as profiler:
        for _ in range(updates):
            update()
        settle()
    lines = [
        (
            each.key.removeprefix("aten::"),
            each.count / updates,
            (each.self_cpu_time_total + each.self_device_time_total),
        )
        for each in profiler.key_averages()
    ]
    frame = pd.DataFrame(lines, columns=["operator", "calls", "ms"]).set_index("operator")
    frame["ms"] /= 1e3 * updates
    whole = frame.sum()
    table = pd.concat([frame.nlargest(largest, "ms"), whole.rename("all of them").to_frame().T.rename_axis("operator")])
    return table.assign(share=table["ms"] / whole["ms"])
