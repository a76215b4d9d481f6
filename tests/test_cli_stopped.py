"""SIGTERM: what is half done is saved or cleared, and one line says how to go on; under torchrun it is said once."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from structure_first import cli
from structure_first.data.corpora.packed import read_manifest
from structure_first.data.corpora.packing import pack
from structure_first.errors import UserError
from structure_first.model import weights
from structure_first.verbs import common

LINE = "structure-first: stopped; give the same command again to go on\n"
RUN = """
    import sys
    from structure_first import cli
    from structure_first.model.transformer import Body
    from structure_first.runs.recipe import Experiment, Phase, Recipe
    from structure_first.experiments.registry import EXPERIMENTS
    from structure_first.training.stage import Stage

    stage = Stage(steps=10**7, batch=4, held_out=4, evaluate_every=10**7)
    phase = Phase("haystack", stage, {"pairs": 2})
    cells = {str(layers): Recipe(None, None, phase, Body(layers=layers)) for layers in range(1, 7)}
    EXPERIMENTS["endless"] = Experiment("endless", "", lambda scale: cells, {})
    cli.main()
"""
TRAIN = """
shape: {layers: 1, heads: 2, width: 32}
corpus: {name: ./rows.jsonl, tokeniser: bytes, context: 16, limit_tokens: 5000, held_out: 0.2}
stage_two: {steps: 10_000_000, batch: 4, lr: 1e-3, evaluate_every: 10_000_000}
"""


def started(*command: object, folder: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    return subprocess.Popen([sys.executable, *map(str, command)], env=environment, cwd=folder, **options)


def rows(folder: Path, count: int) -> None:
    (folder / "rows.jsonl").write_text("".join(f'{{"text": "{number:020}"}}\n' for number in range(count)))


def puts_off(pid: int) -> bool:
    """Whether a process catches Ctrl-C and SIGTERM: `fit` does, while it trains."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1 == 1


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["the parent", "the group"])
def test_workers_save_and_their_parent_says_how_to_go_on(tmp_path, send, until):
    """Where the whole group is sent the signal, a worker gets it twice: of its parent as well. The programs that wait
    for a worker do not begin.
    """
    options = ["--scale", "smoke", "--seeds", 1, "--workers", 2, "--out", "results", "--device", "cpu"]
    running = started("-c", textwrap.dedent(RUN), "run", "endless", *options, folder=tmp_path)
    until(lambda: sum(map(puts_off, children(running.pid))) == 2)
    send(running.pid, signal.SIGTERM)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (143, "", LINE)
    saved = list((tmp_path / "results" / "endless" / "checkpoints").iterdir())
    assert len(saved) == 2 and all("step" in weights.read(path)[1] for path in saved)


UPDATED = """
    from pathlib import Path
    from structure_first import cli
    from structure_first.training.loop import Run

    update = Run.update
    Run.update = lambda self, *given: (update(self, *given), Path("updated").touch())
    cli.main()
"""


def test_a_training_saves_and_says_how_to_go_on(tmp_path, until):
    rows(tmp_path, 1000)
    (tmp_path / "run.yaml").write_text(TRAIN)
    running = started("-c", textwrap.dedent(UPDATED), "train", "run.yaml", "--device", "cpu", folder=tmp_path)
    until((tmp_path / "updated").exists)
    running.terminate()
    assert (*running.communicate(timeout=120), running.returncode) == ("", LINE, 143)
    (saved,) = (tmp_path / "runs" / "run" / "checkpoints").iterdir()
    assert weights.read(saved)[1]["step"] > 0


SMALL = """
    from structure_first import cli
    from structure_first.data.corpora import packing

    packing.SHARD_TOKENS = 500
    cli.main()
"""


def test_a_packing_clears_what_is_half_written_and_says_how_to_go_on(tmp_path, monkeypatch, until):
    rows(tmp_path, 200_000)
    options = ["--tokeniser", "bytes", "--out", "packed"]
    running = started("-c", textwrap.dedent(SMALL), "pack", "rows.jsonl", *options, folder=tmp_path)
    folder = tmp_path / "packed"
    until((folder / "train-00003.npy").exists)
    running.terminate()
    assert (*running.communicate(timeout=120), running.returncode) == ("", LINE, 143)
    shards = len(read_manifest(folder)["shards"])
    assert shards >= 3 and not list(folder.glob(".*"))
    limit = sum(read_manifest(folder)["tokens"].values()) + 1000
    monkeypatch.chdir(tmp_path)
    assert len(pack("rows.jsonl", "bytes", folder, limit_tokens=limit)["shards"]) == shards + 1


def test_under_torchrun_a_line_is_said_once_and_another_one_as_well(tmp_path, monkeypatch, capsys):
    def says(rank: int, verb: str) -> str:
        place = tmp_path / str(rank) / "error.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(place))
        monkeypatch.setattr(sys, "argv", ["structure-first", verb])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 2
        return capsys.readouterr().err

    assert says(1, "trian") == "structure-first: unknown verb 'trian'; did you mean 'train'?\n"
    assert says(0, "trian") == "" and says(2, "trian") == ""
    assert says(0, "paln") == "structure-first: unknown verb 'paln'; did you mean 'plan'?\n"
    monkeypatch.setattr(common, "unknown", lambda *_: UserError(f"gone (port {os.environ['TORCHELASTIC_ERROR_FILE']})"))
    assert says(0, "plan ") and not says(1, "plan "), "a reason in brackets differs between processes"
