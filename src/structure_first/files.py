"""Files that are either whole or not there, and folders that one process holds."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from safetensors import SafetensorError

from structure_first.errors import UserError, reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that becomes `path` if the block succeeds and vanishes if it does not.

    Raises `UserError` in one line where the folder cannot be written or the disk is full; `path` is then as it was.
    What a killed process left of the same file is removed.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is no ordinary file; name another")
        collect(path.parent, re.escape(path.name))
        temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")  # known before it is there: a signal may come
        with open(temporary, "x") as held:
            with suppress(OSError):  # not every file system has locks; without them nothing is collected
                fcntl.flock(held, fcntl.LOCK_SH)
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # a writer may have put a file of its own there
            os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def becoming(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which is missing or empty, that becomes it if the block succeeds and vanishes
    if it does not; the caller holds `folder`. Raises `UserError` as `replacing` does.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cannot_write(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot write {path}: {reason(error)}; free some space or name another place")


def collect(folder: Path, names: str) -> None:
    """Remove the temporary files of a folder that no process holds, of the files whose name matches `names`."""
    ours = re.compile(rf"\.(?:{names})\.[0-9a-f]{{8}}\.tmp")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.is_file():
            with suppress(OSError), open(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, for this process, and leave no empty one.

    Raises `UserError` where another process holds it. No file is written; the system lets go when the process ends.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name another folder") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing to {folder}; wait for it or name another folder") from None
        except OSError as error:
            raise UserError(f"cannot lock {folder}: {error.strerror}; name a folder of another disk") from None
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
    finally:
        os.close(handle)
