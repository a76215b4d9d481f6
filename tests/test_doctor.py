"""`structure-first doctor`: what this machine is, against what is pinned."""

from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from structure_first.verbs import app, doctor


def told(*options: str):
    return CliRunner().invoke(app, ["doctor", *options])


def test_an_installation_as_pinned_is_well():
    result = told("--no-time")
    assert result.exit_code == 0 and result.stdout.endswith("nothing is amiss\n")
    assert f"torch {torch.__version__}" in result.stdout


@pytest.mark.parametrize("pinned, amiss", [("1.0.0", True), (torch.__version__.partition("+")[0], False)])
def test_another_version_than_the_pinned_one_is_said(tmp_path, monkeypatch, pinned, amiss):
    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# pins\ntorch=={pinned}  # the framework\nno-such-package==1.0\n")
    monkeypatch.setattr(doctor, "PINS", pins)
    result = told("--no-time")
    assert result.exit_code == amiss
    assert (f"pip install torch=={pinned}" in result.stdout) == amiss and "no-such-package" not in result.stdout


def test_a_full_disk_is_said(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert "0.1 GB of disk are free here" in told("--no-time").stdout


def test_the_chapters_are_timed_at_both_small_scales(monkeypatch):
    import pandas as pd

    monkeypatch.setattr(
        "structure_first.runs.planning.costs", lambda jobs, workers: pd.DataFrame({"stage": [2], "hours": [len(jobs)]})
    )
    result = told()
    lines = [line.split() for line in result.stdout.splitlines() if " minutes at smoke" in line]
    assert [line[0] for line in lines] == ["two_stages", "haystack", "skills", "substitutive", "published"]
    assert all(float(line[1]) > 0 and line[-1] == "laptop" for line in lines)


def test_chapters_whose_live_rows_are_all_stored_take_nothing(monkeypatch):
    monkeypatch.setattr("structure_first.runs.planning.plan", lambda *asked: SimpleNamespace(jobs=[]))
    result = told()
    assert result.exit_code == 0 and " minutes at" not in result.stdout
