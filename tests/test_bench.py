"""The bench runs and prints its ratios; how large they are is not a test's business."""

import re
import subprocess
import sys

from structure_first.data.registry import PROCEDURAL


def test_quick_prints_every_ratio():
    command = [sys.executable, "-m", "structure_first.bench", "--quick"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stderr
    lines = said.stdout.splitlines()
    assert re.search(r"\d+ cores, torch \d", lines[0])
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert set(PROCEDURAL) <= set(listed)
    assert len(re.findall(r"\d x$", said.stdout, re.MULTILINE)) == 3  # the generators that have a plain peer
    ratios = re.findall(r"(\d+\.\d\d) x \((\d+\.\d\d) to (\d+\.\d\d)\)", said.stdout)
    assert len(ratios) >= 2 and len(ratios) % 2 == 0
    assert all(float(low) <= float(middle) <= float(high) for middle, low, high in ratios)
