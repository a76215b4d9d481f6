"""The bench runs and prints its ratios; how large they are is not a test's business."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest

from structure_first import cli
from structure_first.bench import grid, report
from structure_first.bench.grid import program
from structure_first.data.registry import PROCEDURAL
from structure_first.errors import UserError
from structure_first.machine import cores
from structure_first.model.transformer import Transformer
from structure_first.model.weights import to_hf
from structure_first.training.loop import Run
from structure_first.training.predictions import predict
from structure_first.training.stream import Stream

RATIO = re.compile(r"(\d+\.\d\d) x \((\d+\.\d\d) to (\d+\.\d\d)\)")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bench") / "ratios.json"


@pytest.fixture(scope="module")
def said(kept: Path) -> str:
    command = [sys.executable, "-m", "structure_first.cli", "bench", "--quick", "--out", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_quick_prints_every_ratio(said: str):
    lines = said.splitlines()
    assert re.search(r"\d+ cores, torch \d", lines[0])
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert set(PROCEDURAL) <= set(listed)
    assert len(re.findall(r"\d x$", said, re.MULTILINE)) == 4  # the generators that have a plain peer
    ratios = RATIO.findall(said[: said.index("GPT-2-shaped steps")])
    steps = RATIO.findall(said[said.index("Optimizer steps") : said.index("The grid: ")])
    threads = len({1, cores()})
    assert len(steps) == threads + (threads + 1) and len(ratios) > len(steps)  # a step; and as one program, or split
    assert all(float(low) <= float(middle) <= float(high) for middle, low, high in ratios)


def test_quick_prints_what_text_costs(said: str):
    steps = re.split("whole warm-up", said[said.index("GPT-2-shaped steps a second") :], flags=re.IGNORECASE)[0]
    assert len(RATIO.findall(steps)) == 1 and re.search(r"model FLOPs of ours, .*: \d+%", steps)


def test_quick_prints_the_grids_tables(said: str):
    grids = said[said.index("The grid: reversed_addition") :]
    for title in ("against one at a time", "against Trainer"):
        part = grids[grids.index(title) :].split("\n\n")[0]
        assert len(RATIO.findall(part)) >= 1, title
    assert "memory of a replica, as a plan counts it" in grids
    assert "train_loss" not in said  # the Trainer keeps quiet


def test_a_whole_warm_up_is_measured_where_its_peer_is_installed(said: str):
    part = said[said.lower().index("whole warm-up") :]
    if find_spec("pptrain"):
        assert len(RATIO.findall(part)) == 1 and "Writing model" not in part, "the contenders keep quiet"
    else:
        assert part.startswith("whole warm-up is not measured") and part.strip().endswith("pptrain==0.3.0)")


def test_every_ratio_is_kept(said: str, kept: Path):
    found = json.loads(kept.read_text())
    assert found["quick"] and found["machine"] == said.splitlines()[0]
    ratios = report.former(kept)
    printed = [float(middle) for middle, _, _ in RATIO.findall(said)]
    compared = {what: ratio for what, ratio in ratios.items() if not what.startswith("generator")}
    assert sorted(printed) == sorted(round(ratio, 2) for ratio in compared.values())
    assert len(ratios) == len(printed) + 4


def test_a_ratio_lower_than_nine_tenths_of_the_former_is_slower(capsys):
    assert report.compared({"a": 0.91, "new": 1.0}, {"a": 1.0, "gone": 1.0})
    assert not report.compared({"a": 0.89, "b": 3.0}, {"a": 1.0, "b": 3.0})
    said = capsys.readouterr().out
    assert "0 of 1 ratios" in said and "1 of 2 ratios" in said and len(re.findall("slower$", said, re.MULTILINE)) == 1


def test_ratios_of_another_part_are_not_compared():
    with pytest.raises(UserError, match="none of the former ratios was measured; bench the part that they are of"):
        report.compared({"a": 1.0}, {"gone": 1.0})


def test_the_command_compares_and_exits(tmp_path, monkeypatch, capsys):
    file = tmp_path / "ratios.json"
    file.write_text(json.dumps({"ratios": {"a": 2.0}}))
    for now, status in ((1.9, 0), (1.7, 1)):
        monkeypatch.setattr(report, "measured", lambda *_, now=now: {"a": now})
        monkeypatch.setattr(sys, "argv", ["structure-first", "bench", "--against", str(file)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == status
    monkeypatch.setattr(sys, "argv", ["structure-first", "bench", "--against", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "name a file that `structure-first bench --out` wrote" in capsys.readouterr().err


def test_the_program_is_the_grids_cell():
    job = program(3)
    assert job.phase.source == "reversed_addition" and job.stage == 2
    assert job.phase.stage.batch == 64 and job.shape.width == 16 and job.seeds == (0, 1, 2)


def test_the_trainer_trains_as_we_do():
    job, steps = program(1, "smoke", "cpu"), 4
    made, stage = job.phase.make(), replace(job.phase.stage, lr=1e-2, warmup=0)
    model = Transformer(replace(job.shape, context=made.length), job.seeds)
    theirs, stream, stamps = to_hf(model), Stream(made, stage.batch, job.seeds, "stage 2"), []
    run, losses = Run(model, made, stage, "stage 2"), []
    for step in range(steps):
        found = predict(model, stream(step), made.window)
        losses.append((found.nats() / found.mask.sum((1, 2))).item())
        run.update(stream(step), made)
    batches = iter(list(islice(map(stream, range(steps)), steps)))
    done = grid.trainer(theirs, stage, batches, steps, stamps.append).train()
    assert stamps == [1, 2, 3, 4]
    assert losses[-1] < losses[0] - 0.01
    assert done.training_loss == pytest.approx(sum(losses) / steps, rel=1e-4)
