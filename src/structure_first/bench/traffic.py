"""What a program asks of the machine, counted op by op, and what the machine could give: its ceilings, measured."""

from collections.abc import Callable
from math import prod
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from structure_first.cost import flops
from structure_first.cost.hours import seconds_of
from structure_first.runs.jobs import Job
from structure_first.runs.planning import update_of
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import settle

OVERWRITTEN = ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_")  # their `self` is written, never read


class Traffic(TorchDispatchMode):
    """Counts, of every op that runs inside it, the bytes of the tensors that it reads and of those that it writes.

    An op that only looks at memory in another way moves nothing, and is counted as a view. One that takes some rows of
    a table is charged the whole table.
    """

    def __init__(self):
        super().__init__()
        self.read, self.written, self.calls, self.views = 0, 0, 0, 0
        self.by_op: dict[str, list[float]] = {}  # calls, bytes, and seconds of each op

    @property
    def bytes(self) -> int:
        return self.read + self.written

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        settle()
        began = perf_counter()
        out = op(*args, **(kwargs or {}))
        settle()
        seconds = perf_counter() - began
        schema, name = op._schema, op._schema.name.removeprefix("aten::")
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | (kwargs or {})
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors(given)}
        fresh = [tensor for tensor in tensors(out) if tensor.untyped_storage().data_ptr() not in places]
        if not fresh and tensors(out) and not schema.is_mutable:
            self.views += 1
            return out
        before, blank = self.bytes, name.startswith("new_") or name.endswith("_like")  # these look at shapes alone
        for argument in schema.arguments:
            size = sum(map(nbytes, tensors(given.get(argument.name))))
            # A fused optimizer declares its gradients written, and does so only where it unscales them.
            writes = argument.alias_info is not None and argument.alias_info.is_write and argument.name != "grads"
            self.written += size * writes
            self.read += size * (not argument.is_out and not blank and not (writes and name in OVERWRITTEN))
        if "empty" not in name:
            self.written += sum(map(nbytes, fresh))
        self.calls += 1
        of_op = self.by_op.setdefault(name, [0, 0, 0.0])
        for place, more in enumerate((1, self.bytes - before, seconds)):
            of_op[place] += more
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def nbytes(tensor: Tensor) -> int:
    """What there is of it in memory: less than it seems where it is expanded."""
    each = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * prod(size for size, stride in each if stride or not size)


class Ceilings(NamedTuple):
    """The most that the device does in a second with torch's present number of threads, and its least for a call."""

    flops: float  # of a large matrix product in float32
    memory: float  # bytes read and written by a copy that fits no cache
    cache: float  # and by one that fits a core's own, or a GPU's
    call: float  # seconds that an op on a single number takes to be called
    view: float  # and a view


@torch.no_grad()
def ceilings(device: torch.device | str = "cpu", seconds: float = 0.5) -> Ceilings:
    """Measured here and now, each for about so many seconds."""
    cuda = torch.device(device).type == "cuda"
    side = 8192 if cuda else 2048
    a, b, product = (torch.ones(side, side, device=device) for _ in range(3))
    flops = 2 * side**3 / best(lambda: torch.mm(a, b, out=product), seconds)
    del a, b, product

    def copied(elements: int, calls: int) -> float:
        here, there = torch.ones(elements, device=device), torch.ones(elements, device=device)
        return 2 * here.nbytes / best(lambda: there.copy_(here), seconds, calls)

    memory = copied(1 << (28 if cuda else 25), 1)
    cache = copied(1 << 22 if cuda else torch.get_num_threads() << 16, 100)
    one = torch.ones(1, device=device)
    call, view = best(lambda: one + one, seconds, 1000), best(lambda: one.view(1), seconds, 1000)
    return Ceilings(flops, memory, cache, call, view)


def best(work: Callable[[], Any], seconds: float, calls: int = 1) -> float:
    """Seconds of a call, in the fastest of the rounds of `calls` that fit into `seconds`, after one to warm up."""
    found, until = [], None
    while until is None or perf_counter() < until or len(found) < 2:
        settle()
        began = perf_counter()
        for _ in range(calls):
            work()
        settle()
        if until is None:
            until = perf_counter() + seconds
        else:
            found.append((perf_counter() - began) / calls)
    return min(found)


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
