"""The command `structure-first`: it runs a verb; whatever a user gets wrong is one line, and exit status 2.

What takes time to import is imported where Ctrl-C is already answered.
"""

import os
import sys
from contextlib import suppress
from itertools import pairwise

from structure_first.errors import UserError

STOPPED = (130, 143)  # the exit statuses after Ctrl-C and after SIGTERM


def main() -> None:
    """Run the command line."""
    message: str | None = ""
    try:
        os.environ["PYTHONSAFEPATH"] = "1"  # no Python that this one starts runs what lies in the current folder
        from structure_first.training import signals
        from structure_first.verbs import app

        with signals.ending():
            check(sys.argv[1:])
            code = app(standalone_mode=False, prog_name="structure-first") or 0
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED[0]
    except SystemExit as stopped:
        code = stopped.code
    except Exception as error:
        code, message = 2, explained(error)
        if message is None:
            raise
    if code in STOPPED:
        message = "stopped; give the same command again to go on"
    if message and sys.stderr is not None and not already_said(message):
        with suppress(OSError):
            print(f"structure-first: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def check(arguments: list[str]) -> None:
    """Refuse what no verb has a use for, and few would see."""
    for before, argument in pairwise(["", *arguments]):
        name, value = argument.split("=", 1) if argument.startswith("--") and "=" in argument else ("", argument)
        if not value:
            raise UserError(f"an empty value{f' of {name}' if name else ''}; leave it out or fill it in")
        if argument.encode(errors="replace").decode() != argument:  # bytes that are no UTF-8 come as half letters
            raise UserError(f"{argument!r:.60} is no UTF-8; rename what it stands for")
        if not value.startswith("~") or "--prompt" in (before, name):
            continue
        if os.path.expanduser(value) == value:
            raise UserError(f"{value}: there is no user of that name; write ./{value} for a file that is called so")
        if name:
            raise UserError(f"{argument}: no shell expands ~ behind a =; write {name} {value}")


def explained(error: Exception) -> str | None:
    """What a user is told of an error; None where it is the program that has to be mended."""
    if isinstance(error, UserError):
        return str(error)
    if hasattr(error, "format_message"):
        from structure_first.verbs import usage

        return usage(error)
    if isinstance(error, MemoryError):
        return "that needs more memory than there is; ask for less"
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}; name another"
    with suppress(OSError, ValueError):  # what is left of the output goes nowhere, instead of failing again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"cannot go on: {error.strerror or error}; free some space or print to another place"


def printable(message: str) -> str:
    """As one line, whatever names are in it."""
    line = " ".join(message.split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def already_said(message: str) -> bool:
    """Whether another of the processes that torchrun started here has said so, but for a reason in brackets."""
    if not (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        return False
    from hashlib import blake2b
    from pathlib import Path

    name = blake2b(message.partition(" (")[0].encode(), digest_size=8).hexdigest()
    try:
        Path(path).parents[1].joinpath(f"said-{name}").touch(exist_ok=False)  # in the folder that the processes share
    except OSError as error:
        return isinstance(error, FileExistsError)
    return False


if __name__ == "__main__":
    main()
