"""What a program asks of the machine, counted op by op, and what the machine could give: its ceilings, measured."""

from collections.abc import Callable
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
