"""The one error a user sees: a line that says what was wrong, what is allowed and what to do."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

LISTED = 30  # names; of more, only the first few


class UserError(Exception):
    """Bad input or a failed resource; the command line prints it as one line and exits with status 2."""


def unknown(kind: str, name: str, known: Iterable[str], meant: str | None = None) -> UserError:
    """The error for a name that is not in `known`, naming the one `meant` or else the nearest."""
    known = sorted(known)
    nearest = [meant] if meant in known else get_close_matches(name, known, n=1, cutoff=0.4)
    listed = known if len(known) <= LISTED else [*known[:5], f"and {len(known) - 5} more"]
    hint = f"did you mean {nearest[0]!r}?" if nearest else "known: " + ", ".join(listed)
    return UserError(f"unknown {kind} {name!r}; {hint}")


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raise `UserError` unless a name is in `known`."""
    if name not in known:
        raise unknown(kind, name, known)


def reason(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raise `UserError` unless a value, if there is one, lies in its range."""
    if value is not None and not low <= value <= high:
        raise UserError(f"{name} must be from {low:,} to {high:,}, not {value:,}")
