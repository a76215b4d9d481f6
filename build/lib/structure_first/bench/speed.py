"""What a training program costs on this machine: by the number of its replicas, and beside the machine's floor."""

from pathlib import Path
from statistics import median

import pandas as pd
import torch

from structure_first.bench.traffic import Traffic, ceilings
from structure_first.cost import flops
from structure_first.cost.hours import seconds_of
from structure_first.cost.memory import free_memory
from structure_first.experiments import skills
from structure_first.runs.jobs import Job, out_of_memory
from structure_first.runs.planning import SPARE, bytes_of, update_of
from structure_first.training.devices import device as pick_device

CELL = "reversed_addition / random init"


def program(replicas: int, scale: str = "laptop", device: str = "auto", cell: str = CELL) -> Job:
    """So many replicas of a cell of the grid as one program; no file of it is ever read or written."""
    return Job.of(cell, skills.EXPERIMENT.recipes(scale)[cell], range(replicas), Path(), device)


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
    while replicas <= largest and replicas * counted < SPARE * free_memory(where):
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


def floor(job: Job, spend: float = 1.0) -> pd.DataFrame:
    """What one update of the job asks of the machine, the machine's ceilings, and the least time that follows.

    Matrix products are counted from the model, bytes and calls from the update's ops as they run; the ceilings are
    measured in this process with its present threads. `share` is of the measured step, in the last line.
    """
    made, update = job.phase.make(), update_of(job)
    seconds = seconds_of(update, spend)
    with Traffic() as traffic:
        update()
    del update
    most = ceilings(pick_device(job.device), spend / 2)
    products = flops.training(job.shape, made) * job.phase.stage.batch * len(job.replicas)
    lines = [
        ("matrix products", products / 1e9, "GFLOP", most.flops / 1e9),
        ("bytes, if from the cache", traffic.bytes / 1e9, "GB", most.cache / 1e9),
        ("bytes, if from memory", traffic.bytes / 1e9, "GB", most.memory / 1e9),
        ("operator calls", traffic.calls / 1e3, "thousand", 1e-3 / most.call),
        ("views", traffic.views / 1e3, "thousand", 1e-3 / most.view),
        ("the step, measured", 1.0, "step", 1 / seconds),
    ]
    frame = pd.DataFrame(lines, columns=["what", "counted", "unit", "most a second"]).set_index("what")
    frame["least ms"] = 1e3 * frame["counted"] / frame["most a second"]
    frame["share"] = frame["least ms"] / (1e3 * seconds)
    return frame


def held_back(found: pd.DataFrame) -> str:
    """What `floor` found, as a sentence: how far the step is from the floor, and what most of its time goes to.

    The floor is the larger of what the products and the bytes need, these at the cache's speed: a lower bound, since
    some bytes do come from memory.
    """
    ms = found["least ms"]
    step, products, cached = ms["the step, measured"], ms["matrix products"], ms["bytes, if from the cache"]
    calls = ms["operator calls"] + ms["views"]
    parts = {
        "the matrix products": products,
        "the bytes that the operators pass to one another": cached,
        "the calls of the operators": calls,
        "what none of these counts (Python, bytes from memory, elementwise arithmetic, short rows, idle threads)": (
            step - products - cached - calls
        ),
    }
    most = max(parts, key=parts.get)
    least = max(products, cached)
    return (
        f"A step takes {_ms(step)}, {step / least:.1f} times its floor of {_ms(least)}: at the measured ceilings "
        f"the matrix products need {_ms(products)}, the bytes {_ms(cached)} if all come from the cache and "
        f"{_ms(ms['bytes, if from memory'])} if all come from memory, and the calls {_ms(calls)}. "
        f"Most of the step goes to {most}: {_ms(parts[most])}."
    )


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def operators(job: Job, updates: int = 5, largest: int = 8) -> pd.DataFrame:
    """The operators that one update of the job spends most time in, and the bytes a second that each reaches.

    They are timed one by one, each in the median of some updates; what they take together is not the step, since
    nothing overlaps, and what Python and the automatic differentiation do between them is left out. The last line is
    their sum.
    """
    update, rounds = update_of(job), []
    update()
    for _ in range(updates):
        with Traffic() as traffic:
            update()
        rounds.append(traffic.by_op)
    lines = []
    for name, (calls, moved, _) in rounds[-1].items():
        seconds = median(each[name][2] for each in rounds if name in each)
        lines.append((name, calls, moved / 1e9, 1e3 * seconds, moved / seconds / 1e9))
    frame = pd.DataFrame(lines, columns=["operator", "calls", "GB", "ms", "GB a second"]).set_index("operator")
    whole = frame.sum()
    whole["GB a second"] = 1e3 * whole["GB"] / whole["ms"]
    found = pd.concat([frame.nlargest(largest, "ms"), whole.rename("all of them").to_frame().T.rename_axis("operator")])
    return found.assign(share=found["ms"] / whole["ms"])
