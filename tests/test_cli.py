"""The command line: what it says, and one line with exit status 2 for whatever a user gets wrong."""

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
import torch

import structure_first
from structure_first import cli
from structure_first.evidence.store import Store
from structure_first.experiments import haystack
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.scales import SCALES
from structure_first.training.stage import Stage

ROOT = Path(__file__).parents[1]
VERBS = ("sources", "generate", "pack", "run", "train", "plan", "claims", "book")


class Command:
    """`structure-first` in this process."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        self.monkeypatch.setattr(sys, "argv", ["structure-first", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        captured = self.capsys.readouterr()
        return exit.value.code, captured.out, captured.err

    def prints(self, *arguments: object) -> str:
        code, out, _ = self(*arguments)
        assert code == 0
        return out

    def fails(self, *arguments: object) -> str:
        """The one line on standard error."""
        code, out, err = self(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("structure-first: ") and err.count("\n") == 1 and err.endswith("\n")
        return err


@pytest.fixture
def command(monkeypatch, capsys) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def tiny(monkeypatch) -> str:
    """An experiment of two cells and a few steps."""
    from structure_first.experiments.registry import EXPERIMENTS

    stage = Stage(steps=4, batch=4, warmup=1, held_out=4, evaluate_every=2)
    copy = Phase("identity", stage, {"length": 3, "vocab": 5})
    cells = {"first": Recipe(None, None, copy), "second": Recipe(None, None, copy, Body(layers=1))}
    seeds = dict.fromkeys(SCALES, 2)
    monkeypatch.setitem(EXPERIMENTS, "tiny", Experiment("tiny", "Does it run?", lambda scale: cells, seeds))
    return "tiny"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_help_has_a_line_for_each_verb_and_loads_nothing_heavy():
    """In a process of its own: what answers at once must not wait for torch."""
    code = "import sys\nfrom structure_first.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in said.splitlines()]
    listed = {line[0]: line[1] for line in lines if len(line) == 2 and line[0] in VERBS}
    assert set(listed) == set(VERBS)
    assert all(line.endswith(".") and "..." not in line for line in listed.values())
    assert said.startswith("Usage: structure-first ") and said.endswith("False\n")


def test_a_mistake_in_the_real_command_is_one_line_and_status_2():
    arguments = ["generate", "dyck", "--tokens", "10", "--out", "no/such/place.parquet", "--length", "7"]
    said = subprocess.run([sys.executable, "-m", "structure_first.cli", *arguments], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "structure-first: dyck: length must be even, not 7\n"


def test_a_value_may_end_in_an_equals_sign():
    cli.check(["sample", "run", "--prompt=1+1="])


@pytest.mark.parametrize("words", [["--prompt", "~ is a letter"], ["--prompt=~ is a letter"]])
def test_a_prompt_may_begin_with_a_tilde(words):
    cli.check(["sample", "run", *words])


def test_alone_it_prints_its_help(command):
    assert command.prints() == command.prints("--help")


def test_version(command):
    assert command.prints("--version") == f"structure-first {structure_first.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(command, verb):
    said = command.prints(verb, "--help")
    assert said.startswith(f"Usage: structure-first {verb}") and "[/" not in said


def test_sources_are_listed(command):
    said = command.prints("sources")
    for name in ("identity", "dyck_shuffle", "eca", "haystack", "reversed_addition", "random"):
        assert name in said


def test_generate_writes_what_it_says(command, tmp_path):
    out = tmp_path / "new" / "data.jsonl"
    settings = ["--length=8", "--k", 2, "--p", 0.4, "--seed", 3]
    assert command.prints("generate", "shuffled:dyck", "--tokens", 20, "--out", out, *settings) == f"wrote {out}\n"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(line["tokens"]) for line in lines] == [8, 8, 8]
    assert files(tmp_path) == ["new", "new/data.jsonl", "new/data.md"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(command, tmp_path, tiny):
    said = command.fails("run", tiny, "--out", tmp_path, "--device", "cuda")
    assert "no CUDA GPU is visible" in said and files(tmp_path) == []


def test_an_experiment_runs_once(command, tmp_path, tiny):
    arguments = ["run", tiny, "--scale", "smoke", "--seeds", 1, "--first-seed", 4, "--workers", 1, "--out", tmp_path]
    said = command.prints(*arguments, "--cells", "first")
    assert said.startswith("first ") and said.count("\n") == 1 and said.endswith("of 1 seeds\n")
    rows = Store(tmp_path / tiny).rows()
    assert set(rows["cell"]) == {"first"} and set(rows["seed"]) == {4} and set(rows["scale"]) == {"smoke"}
    assert command.prints(*arguments).splitlines()[0] == said.rstrip()
    again = Store(tmp_path / tiny).rows()
    assert set(again["cell"]) == {"first", "second"}
    pd.testing.assert_frame_equal(again[again["cell"] == "first"].reset_index(drop=True), rows)
    before = (tmp_path / tiny / "rows.parquet").stat().st_mtime_ns
    command.prints(*arguments)
    assert (tmp_path / tiny / "rows.parquet").stat().st_mtime_ns == before


def test_a_plan_of_an_experiment_is_printed_and_leaves_nothing(command, tmp_path, tiny):
    arguments = ["run", tiny, "--scale", "smoke", "--seeds", 2, "--workers", 1, "--device", "cpu", "--out", tmp_path]
    lines = command.prints(*arguments, "--plan").splitlines()
    assert lines[0].split() == [
        "stage",
        "source",
        "models",
        "programs",
        "cells",
        "updates",
        "PFLOPs",
        "MB",
        "a",
        "model",
        "hours",
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["2", "2"] and lines[-1].startswith("in all 4 models, ")
    assert lines[-1].endswith(" hours on this machine with 1 processes") and files(tmp_path) == []
    command(*arguments)
    assert command.prints(*arguments, "--plan") == "nothing is missing\n"


def test_the_ledger(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    entries = json.loads(command.prints("claims", "--results", tmp_path, "--json"))
    assert len(entries) > 10
    assert all(list(entry) == ["id", "statement", "paper", "published", "tuned"] for entry in entries)
    assert {entry[column] for entry in entries for column in ("published", "tuned")} == {None}
    said = command.prints("claims", "--results", tmp_path).splitlines()
    assert [line.split(":")[0] for line in said[::3]] == [entry["id"] for entry in entries]
    assert said[1::3] == ["  published  not yet run"] * len(entries)


def test_measured_claims_stand_in_the_table(command, tmp_path):
    for cell, value in (("dyck", 0.99), ("random init", 0.15)):
        rows = pd.DataFrame(
            dict(experiment="haystack", scale="laptop", cell=cell, stage=2, seed=seed, step=1, metric="accuracy")
            | dict(tokens=1, flops=1, value=value)
            for seed in range(10)
        )
        configuration = haystack.EXPERIMENT.recipes("laptop")[cell].key
        Store(tmp_path / "haystack").append(rows.assign(run=cell), {cell: {"configuration": configuration}})
    query = "{experiment: haystack, metric: accuracy, compare: [[dyck, random init]], reproduced_from: 0.44, "
    query = f"{{queries: [{query}differ: [stage_one, transfer]}}]}}"
    (tmp_path / "claims.yml").write_text(f"- {{id: haystack, statement: It jumps, paper: 98 %, tuned: {query}}}")
    options = ["--results", tmp_path, "--ledger", tmp_path / "claims.yml"]
    title, published, tuned = command.prints("claims", *options).splitlines()
    assert title == "haystack: It jumps" and published.split() == ["published", "not", "yet", "run"]
    assert tuned.split()[:2] == ["tuned", "reproduced"]
    assert tuned.endswith("accuracy +0.840 [+0.840, +0.840], 10 seeds, laptop")
    (entry,) = json.loads(command.prints("claims", *options, "--json"))
    assert entry["published"] is None
    answer = entry["tuned"]
    assert (answer["verdict"], answer["seeds"], answer["scale"]) == ("reproduced", 10, "laptop")


def test_what_lies_in_the_current_folder_does_not_run_in_workers(command, tmp_path, monkeypatch):
    """`python -c`, with which a worker starts, would look there first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit('it ran')")
    command.prints("--version")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_interrupt_and_sigterm_are_one_line(command, monkeypatch, stop, status):
    def stopped(*_, **__):
        raise stop

    monkeypatch.setattr("structure_first.book.build.build", stopped)
    code, _, err = command("book")
    assert code == status and err == "structure-first: stopped; give the same command again to go on\n"
