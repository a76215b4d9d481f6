"""`make bench`: how fast this machine is, as ratios from one run, beside the targets.

Each part says what it compares, and why that is fair: `generators`, `steps`, `grid` for the replica program, and
`text`. The sides of a comparison are each in a process of its own, as their user would run them, and take turns of a
share of a second, so that whatever else the machine does falls on all; a ratio is the median over turns.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import torch

from structure_first.bench import generators, grid, steps, text
from structure_first.bench.sides import QUICK, Sizes
from structure_first.errors import UserError
from structure_first.training.devices import cores

PARTS = {"generators": generators.report, "steps": steps.report, "grid": grid.report, "text": text.report}


def machine() -> str:
    """What was measured on, and how busy it was."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {cores()} cores, torch {torch.__version__}{load}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="structure_first.bench", description="Print this machine's speed, as ratios.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    print(machine())
    if chosen.quick:
        print("sizes are far below those that the targets are stated for: this shows only that the bench runs")
    for name, report in PARTS.items():
        if chosen.only in (None, name):
            report(sizes)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"structure_first.bench: {error}", file=sys.stderr)
        sys.exit(2)
