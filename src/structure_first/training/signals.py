"""SIGTERM and Ctrl-C, put off until a step has ended."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def put_off(wanted: bool = True) -> Iterator[Callable[[], int]]:
    """Within, SIGTERM and Ctrl-C interrupt nothing; the function this yields says which of them came, 0 if none did.

    A second one acts at once, and so does one that is ignored. Only the main thread can put them off.
    """
    came, before = [0], {}

    def note(number: int, frame: object) -> None:
        came[0] = number
        restore()

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if wanted and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, note)
    try:
        yield lambda: came[0]
    finally:
        restore()


def stop(number: int) -> BaseException:
    """What ends a program that has put signal `number` off: `KeyboardInterrupt`, or exit status 128 and the number."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
