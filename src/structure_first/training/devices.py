"""Where training runs, and settings of the process that make it faster."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.backends.mkldnn import MkldnnModule  # what `torch.backends.mkldnn` is; mypy sees its file

from structure_first.errors import UserError, check_known

TINY = 5e-324  # the smallest double, and so not normal
LARGE = 1 << 24  # multiplications in a product, from which on its speed counts for more than its call


def device(name: str = "auto") -> torch.device:
    """`auto` (CUDA where there is one), `cpu` or `cuda`; raises `UserError` for a GPU that is not there."""
    check_known("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU is visible to torch; use --device cpu or --device auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def keep_freed_memory() -> None:
    """Let the C allocator keep large freed blocks instead of returning them to the system, where it is glibc.

    A training step frees and takes the same tens of megabytes again and again; returned each time, they cost a page
    fault a page: 30 to 50 % of a diagnostic's step.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        mmap_threshold, trim_threshold, largest = -3, -1, 2**31 - 1
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, largest)


@contextmanager
def flushed() -> Iterator[None]:
    """Within, this thread's CPU takes numbers below float32's normal ones (1.2e-38) for zero.

    A sharp softmax is full of them, and a processor needs a hundred cycles for each: a quarter of a step of a model
    that has learnt to look things up. Beside any number that counts they are lost in rounding anyhow.
    """
    already = 2 * TINY == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def choose_products(multiplications: int) -> None:
    """Let oneDNN multiply float32 matrices on a CPU if a typical product is large, wherever it stays in float32.

    MKL, which torch asks otherwise, holds itself back on processors that are not Intel's, to less than half the speed;
    but a call of oneDNN takes some 20 us, as long as a small product. torch hands float32 to it only together with the
    leave to round to bfloat16 inside, of which oneDNN makes use where hardware is made for it (AMX): there MKL stays.
    """
    MkldnnModule.matmul.fp32_precision = "bf16" if multiplications >= LARGE and onednn_is_exact() else "none"


@cache
def onednn_is_exact() -> bool:
    """Whether float32 products keep what bfloat16 would round away, even where they may."""
    matmul = MkldnnModule.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    fine = torch.full((2, 64, 64), 1 + 2.0**-12)  # bfloat16 makes it 1, and their product 64
    exact = all((product > 64.01).all().item() for product in (fine[0] @ fine[1], torch.bmm(fine, fine)))
    matmul.fp32_precision = before
    return exact


def settle() -> None:
    """Wait until the device has done all that it was asked to, where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def out_of_memory(error: Exception) -> bool:
    """Whether torch, on either device, or numpy ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def enough_memory(otherwise: UserError) -> Iterator[None]:
    """Within, what runs out of memory says `otherwise`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise otherwise from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread, so that a program's rows do not depend on how many it might have had."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
