"""SIGTERM and Ctrl-C, put off until a step has ended."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def put_off(wanted: bool = True) -> Iterator[Callable[[], int]]:
    """Within, SIGTERM and Ctrl-C interrupt nothing; the function this yields says which of them came, 0 if none did.

    A second one acts at once, but for a process that another one passes on to what the whole group was sent: a worker,
    or one that torchrun started. What is ignored stays so. Only the main thread can put signals off.
    """
    came = [0]
    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
    passed_on = multiprocessing.parent_process() is not None or "TORCHELASTIC_RUN_ID" in os.environ

    def note(number: int, frame: object) -> None:
        came[0] = number
        if not passed_on:
            restore()

    def restore() -> None:
        for number in list(before):
            if (handler := before.pop(number, None)) is not None:  # a signal that comes in between restores the others
                signal.signal(number, handler)

    if wanted and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, note)
    try:
        yield lambda: came[0]
    finally:
        restore()


@contextmanager
def ending() -> Iterator[None]:
    """Within, SIGTERM ends the program as `sys.exit` does: what is half-written is cleared, and workers are told."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop(number: int) -> BaseException:
    """What ends a program that has put signal `number` off: `KeyboardInterrupt`, or exit status 128 and the number."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
