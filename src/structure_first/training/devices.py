"""Where training runs, and two settings of the machine that make it faster."""

import ctypes
import os
import sys

import torch

from structure_first.errors import UserError, unknown


def device(name: str = "auto") -> torch.device:
    """`auto` (CUDA where there is one), `cpu` or `cuda`; raises `UserError` for a GPU that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU is visible to torch; use --device cpu or --device auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
