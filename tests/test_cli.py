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


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["genrate"], "unknown verb 'genrate'; did you mean 'generate'?"),
        (["claim"], "unknown verb 'claim'; did you mean 'claims'?"),
        (
            ["xyzzy"],
            "unknown verb 'xyzzy'; known: bench, book, claims, doctor, generate, merge, pack, p",
        ),
        (["--versoin"], "unknown option '--versoin'; did you mean '--version'?"),
        (["claims", "--resluts", "x"], "unknown option '--resluts'; did you mean '--results'?"),
        (["book", "--scale", "laptp"], "unknown scale 'laptp'; did you mean 'laptop'?"),
        (["run", "haystack", "--scale", "smok", "--seeds", "2"], "unknown scale 'smok'; did you mean 'smoke'?"),
        (["run", "haystak"], "unknown experiment 'haystak'; did you mean 'haystack'?"),
        (["run", "haystack", "--scale", "smoke", "--cells", "random int"], "did you mean 'random init'?"),
        (["run", "skills", "--cells", "?"], "unknown cell '?'; known: addition / delete / attention, addition"),
        (["run", "skills", "--cells", "?"], ", and 335 more"),
        (["run", "haystack_search", "--scale", "gpu"], "no cells at scale gpu; scales at which it has some: laptop"),
        (["run", "haystack", "--scale", "smoke", "--device", "cudda"], "unknown device 'cudda'; did you mean 'cuda'?"),
    ],
)
def test_a_mistyped_name_is_told_the_nearest(command, tmp_path, monkeypatch, arguments, nearest):
    monkeypatch.chdir(tmp_path)
    assert nearest in command.fails(*arguments)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["dick"], "unknown source 'dick'; did you mean 'dyck'?"),
        (["shufled:dyck"], "unknown control 'shufled'; did you mean 'shuffled'?"),
        (["shuffled:dyk"], "unknown source 'dyk'; did you mean 'dyck'?"),
        (["dyck", "--lenght", "8"], "unknown option of generate dyck '--lenght'; did you mean '--length'?"),
        (["dyck", "--sed", "8"], "unknown option of generate dyck '--sed'; did you mean '--seed'?"),
        (["identity", "--k", "8"], "unknown option of generate identity '--k'"),
        (["dyck", "--length", "7"], "length must be even, not 7"),
        (["dyck", "--length", "-2"], "length must be from 1 to 65,536, not -2"),
        (["dyck", "--k", "0"], "k must be from 1 to 65,536, not 0"),
        (["dyck", "--k", "1.5"], "k must be a whole number from 1 to 65,536, not 1.5"),
        (["dyck", "--p", "2"], "p must be from 0 to 1, not 2"),
        (["dyck", "--p", "nan"], "option --p takes a number, not 'nan'"),
        (["identity", "--vocab", "1"], "vocab must be from 2 to 1,048,576, not 1"),
        (["stack", "--length", "64", "--vocab", "10"], "vocab must be 64 or more"),
        (["dyck", "--length"], "option '--length' has no value"),
        (["dyck", "length", "8"], "unexpected argument 'length'"),
        (["dyck", "--tokens", "-5"], "the number of tokens must be from 1 to 1,000,000,000,000, not -5"),
        (["dyck", "--tokens", "0"], "the number of tokens must be from 1"),
        (["dyck", "--tokens", "9" * 30], "the number of tokens must be from 1"),
        (["dyck", "--tokens", "many"], "Invalid value for '--tokens'"),
        (["dyck", "--seed", "-1"], "--seed must be from 0 to 2,147,483,647, not -1"),
    ],
)
def test_impossible_data_says_why(command, tmp_path, arguments, nearest):
    given = [] if "--tokens" in arguments else ["--tokens", "10"]
    assert nearest in command.fails("generate", *arguments, *given, "--out", tmp_path / "data.parquet")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/data.parquet", "cannot write "),
        ("folder.parquet", "is there already"),
        ("data.csv", "must end in one of .parquet, .jsonl"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(command, tmp_path, place, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.parquet").mkdir()
    assert reason in command.fails("generate", "identity", "--tokens", 10, "--out", tmp_path / place)
    assert files(tmp_path) == ["file", "folder.parquet"]


def test_generate_writes_what_it_says(command, tmp_path):
    out = tmp_path / "new" / "data.jsonl"
    settings = ["--length=8", "--k", 2, "--p", 0.4, "--seed", 3]
    assert command.prints("generate", "shuffled:dyck", "--tokens", 20, "--out", out, *settings) == f"wrote {out}\n"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(line["tokens"]) for line in lines] == [8, 8, 8]
    assert files(tmp_path) == ["new", "new/data.jsonl", "new/data.md"]


@pytest.mark.parametrize("missing", [["generate", "dyck"], ["generate"], ["run"], ["claims", "--results"]])
def test_something_left_out_is_one_line(command, missing):
    command.fails(*missing)


def test_one_too_many_is_one_line(command):
    assert "extra" in command.fails("claims", "--json", "more")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--seeds", "0"], "--seeds must be from 1 to 10,000, not 0"),
        (["--seeds", "1000000000"], "--seeds must be from 1 to 10,000, not 1,000,000,000"),
        (["--seeds", "two"], "Invalid value for '--seeds'"),
        (["--first-seed", "-1"], "--first-seed must be from 0 to "),
        (["--workers", "0"], "--workers must be from 1 to 1,000, not 0"),
    ],
)
def test_impossible_counts_say_what_is_possible(command, tmp_path, tiny, arguments, reason):
    assert reason in command.fails("run", tiny, "--out", tmp_path, *arguments)
    assert files(tmp_path) == []


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


def test_results_of_another_format_are_refused_and_left_alone(command, tmp_path, tiny):
    folder = tmp_path / tiny
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": 99, "runs": {}}')
    assert "was written in format 99" in command.fails("run", tiny, "--out", tmp_path)
    assert (folder / "manifest.json").read_text() == '{"format": 99, "runs": {}}'
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_corrupt_results_are_one_line(command, tmp_path, tiny):
    (tmp_path / "haystack").mkdir()
    (tmp_path / tiny).mkdir()
    for name in ("haystack", tiny):
        (tmp_path / name / "rows.parquet").write_bytes(b"PAR1 and then nothing")
    assert "cannot read results" in command.fails("run", tiny, "--out", tmp_path)
    ledger = ROOT / "book" / "claims.yml"
    assert "cannot read results" in command.fails("claims", "--results", tmp_path, "--ledger", ledger)


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


def test_a_missing_or_broken_ledger_is_one_line(command, tmp_path):
    missing = tmp_path / "claims.yml"
    said = command.fails("claims", "--ledger", missing, "--results", tmp_path)
    assert "claims.yml: No such file or directory" in said and "--ledger" in said
    missing.write_text("- id: [")
    assert "claims.yml is no YAML" in command.fails("claims", "--ledger", missing, "--results", tmp_path)


@pytest.fixture
def book(tmp_path, monkeypatch) -> Path:
    """The folder of a book of one chapter; the process stands at its root."""
    folder = tmp_path / "book"
    (folder / "chapters").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text("title: Tiny\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n- file: chapters/03_jump\n")
    (folder / "intro.md").write_text("# Tiny\n")
    cell = dict(cell_type="code", id="a", metadata=dict(tags=["parameters"]), source="", outputs=[])
    notebook = dict(nbformat=4, nbformat_minor=5, metadata={}, cells=[cell | dict(execution_count=None)])
    (folder / "chapters" / "03_jump.ipynb").write_text(json.dumps(notebook))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_mistyped_chapter_is_told_the_nearest(command, book):
    assert "unknown chapter '04'; did you mean '03'?" in command.fails("book", "--chapter", "04")
    assert not (book / "_build").exists()


def test_a_notebook_without_parameters_is_one_line(command, book):
    path = book / "chapters" / "03_jump.ipynb"
    path.write_text(path.read_text().replace("parameters", "hide-input"))
    assert "book/chapters/03_jump.ipynb has no cell tagged 'parameters'" in command.fails("book")


def test_outside_a_repository_the_book_says_where_to_stand(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "run this from the top of the repository" in command.fails("book")


def test_what_lies_in_the_current_folder_does_not_run_in_workers(command, tmp_path, monkeypatch):
    """`python -c`, with which a worker starts, would look there first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit('it ran')")
    command.prints("--version")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_interrupt_and_sigterm_are_one_line(command, book, monkeypatch, stop, status):
    def stopped(*_, **__):
        raise stop

    monkeypatch.setattr("structure_first.book.build.build", stopped)
    code, _, err = command("book")
    assert code == status and err == "structure-first: stopped; give the same command again to go on\n"
