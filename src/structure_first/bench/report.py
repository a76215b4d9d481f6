"""`structure-first bench`: how fast this machine is, as ratios from one run, beside the targets and former ratios.

Each part says what it compares, and why that is fair: `generators`, `steps`, `grid` for the replica program, `text`,
and `warm`. The contenders of a comparison are each in a process of its own, as their user would run them, and take
turns of a share of a second or of a whole warm-up, so that whatever else the machine does falls on all; a ratio is the
median over turns.
"""

import json
import os
from pathlib import Path

import torch

from structure_first.bench import generators, grid, steps, text, warm
from structure_first.bench.harness import QUICK, Ratios, Sizes, table
from structure_first.errors import UserError, check_known
from structure_first.evidence.store import processor
from structure_first.files import write_text
from structure_first.machine import cores
from structure_first.schema import validated

PARTS = {"generators": generators, "steps": steps, "grid": grid, "text": text, "warm": warm}
NO_SLOWER = 0.9  # of a former ratio: what the same code may lose to the machine's mood


def machine() -> str:
    """What was measured on, and how busy it was."""
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{processor()}, {cores()} cores, torch {torch.__version__}{load}"


def measured(quick: bool = False, only: str | None = None, out: Path | None = None) -> dict[str, float]:
    """Print all tables, or those of one part, and return the ratios; they are written to `out`, too."""
    if only is not None:
        check_known("part of the bench", only, PARTS)
    measured_on, ratios = machine(), Ratios()
    print(measured_on)
    if quick:
        print("sizes are far below those that the targets are stated for: this shows only that the bench runs")
    for name, part in PARTS.items():
        if only in (None, name):
            part.report(QUICK if quick else Sizes(), ratios)
    if out is not None:
        write_text(out, json.dumps({"machine": measured_on, "quick": quick, "ratios": ratios}, indent=1) + "\n")
    return dict(ratios)


def former(path: Path) -> dict[str, float]:
    """The ratios of a file that `measured` wrote."""
    try:
        return validated(json.loads(path.read_text()), {"ratios": {...: float}, ...: object})["ratios"]
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it holds no ratios"
        advice = "name a file that `structure-first bench --out` wrote"
        raise UserError(f"cannot read {path}: {problem}; {advice}") from None


def compared(ratios: dict[str, float], before: dict[str, float]) -> bool:
    """Print each ratio beside its former one; whether none is lower than `NO_SLOWER` of it."""
    both = {what: then for what, then in before.items() if what in ratios}
    if not both:
        raise UserError("none of the former ratios was measured; bench the part that they are of with --only")
    slower = [what for what, then in both.items() if ratios[what] < NO_SLOWER * then]
    lines = [
        (what, *map("{:.2f}".format, (then, ratios[what], ratios[what] / then)), "slower" * (what in slower))
        for what, then in both.items()
    ]
    head = ["ratio", "before", "now", "now / before", ""]
    table(f"{len(slower)} of {len(both)} ratios are lower than {NO_SLOWER:g} of what they were", head, lines)
    return not slower
