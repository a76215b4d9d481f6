"""The commands that the README and the configurations name: each is understood as written, and runs at a small size."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from structure_first import cli
from structure_first.experiments import skills
from structure_first.runs.runner import run
from structure_first.verbs import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
NAMED = {
    *re.findall(r"`(structure-first [^`]+)`", README),
    *re.findall(r"^(structure-first .*?)(?: +#.*)?$", "".join(FENCES), re.MULTILINE),
}
ELSEWHERE = {
    found.strip()
    for path in (ROOT / "book" / "configs").glob("*.yaml")
    for found in re.findall(r"(?:structure-first|structure_first\.cli) (.+\.yaml)$", path.read_text(), re.MULTILINE)
}
SMALLER = {  # what is added to a command to make it a try; the others are quick as they are
    "pack": "--limit-tokens 3000",
    "verify": "--scale smoke --results results --cells 'haystack / random init' --sample 1 --workers 1 --device cpu",
    "train": "--steps 1 --device cpu",
    "warm": "--steps 1 --batch 2 --device cpu",
    "run haystack": "--scale smoke --seeds 1 --workers 1 --out results --cells 'random init' --device cpu",
    "run skills": "--scale smoke --seeds 1 --workers 1 --out results --cells 'haystack / random init' --device cpu",
}


def commands() -> list[str]:
    return sorted(command.removeprefix("structure-first ") for command in NAMED)


def understood(arguments: list[str]) -> str:
    """The verb, once its options have been parsed."""
    group = typer.main.get_command(app)
    context = group.make_context("structure-first", arguments, resilient_parsing=True)
    verb, command, rest = group.resolve_command(context, arguments)
    command.make_context(verb, rest, parent=context)
    return verb


def test_the_readme_names_every_verb():
    named = {command.split()[0] for command in commands()}
    assert named >= {"sources", "generate", "run", "pack", "claims", "plan", "train", "--help"}
    assert all(any(command.startswith(prefix) for command in commands()) for prefix in SMALLER)


@pytest.mark.parametrize("command", [*commands(), *sorted(ELSEWHERE)])
def test_every_command_is_understood_as_written(command):
    if not command.startswith("-"):
        assert understood(shlex.split(command)) == command.split()[0]


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(command, tmp_path, monkeypatch, capsys):
    """Beside the book, in a folder where what it writes does no harm."""
    for name in ("book", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    if command.startswith("verify"):  # a row of its own; the book's are begun again in tests/runs/test_verify.py
        run(skills.EXPERIMENT, "smoke", [300], Path("results"), "cpu", workers=1, cells=["haystack / random init"])
    added = next((options for prefix, options in SMALLER.items() if command.startswith(prefix)), "")
    monkeypatch.setattr(sys, "argv", ["structure-first", *shlex.split(f"{command} {added}")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0 and capsys.readouterr().out
