"""Two promises: a generator is one function and one line, an experiment one file and one line.

In a copy of the repository both are added, and nothing else is touched; the tests that go by name then know them and
pass, and so do chapters at `smoke`, the new names among theirs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION = '''

def zigzag(count: int, generator: torch.Generator, *, length: int = 64, period: int = 3, slope: float = 1.0) -> Batch:
    """Numbers that rise to a period and begin again, each sequence from a place of its own."""
    start = torch.randint(period, (count, 1), generator=generator, device=generator.device)
    return predicted_from(1, (start + torch.arange(length, device=generator.device)) % period)
'''
RULE = '    "zigzag": Rule(automata.zigzag, "to count", lambda period, **_: period),\n'
EXPERIMENT = '''"""Does counting first help to copy?"""

from structure_first.model.transfer import Transfer
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.training.stage import Stage

QUICK = Stage(steps=4, batch=4, warmup=1, held_out=8, evaluate_every=2)
COUNT = Phase("zigzag", QUICK, {"length": 8, "period": 2}, tied=True)
COPY = Phase("identity", QUICK, {"length": 4, "vocab": 8}, tied=True)


def cells(scale: str) -> dict[str, Recipe]:
    return {"random init": Recipe(None, None, COPY), "counted": Recipe(COUNT, Transfer(embeddings="mean"), COPY)}


EXPERIMENT = Experiment("counting", "Does counting first help to copy?", cells, {"smoke": 1})
'''
TESTS = [
    "tests/data/test_registry.py::test_a_source_says_what_it_is[zigzag]",
    "tests/data/test_procedural.py::test_same_seed_same_sequences[zigzag]",
    "tests/data/test_controls.py::test_shuffling_keeps_tokens_mask_and_pads[zigzag]",
    "tests/data/test_mixtures.py::test_a_mixture_is_as_wide_and_as_long_as_its_members",
    "tests/experiments/test_skills.py::test_the_grid_is_whole",
    "tests/runs/test_recipe.py::test_every_experiment_with_rows_has_its_keys_written_down",
    "tests/analysis/test_stored.py::test_live_seeds_are_of_no_stored_row",
    "tests/book/test_pages_content.py::test_the_chapter_exhibits_every_source_and_control",
    "tests/book/test_pages_content.py::test_every_experiment_has_its_settings_on_a_page",
    "tests/test_layers.py",
]
LOCAL = ("_build", "checkpoints", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository with a generator and an experiment more."""
    copy = tmp_path_factory.mktemp("promises")
    for name in ("src", "tests", "book"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*LOCAL))
    shutil.copy(ROOT / "pyproject.toml", copy)
    package = copy / "src" / "structure_first"
    append(package / "data" / "procedural" / "automata.py", FUNCTION)
    insert(package / "data" / "registry.py", "PROCEDURAL = {\n", RULE)
    (package / "experiments" / "counting.py").write_text(EXPERIMENT)
    insert(package / "experiments" / "registry.py", "MODULES = (\n", '    "counting",\n')
    return copy


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def insert(path: Path, after: str, line: str) -> None:
    text = path.read_text()
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + line))


def ran(copy: Path, *command: str, **environment: str) -> str:
    """What a command of the copy prints; it must succeed."""
    environment = os.environ | {"PYTHONPATH": f"{copy / 'src'}:{os.environ.get('PYTHONPATH', '')}"} | environment
    done = subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_tests_know_both_by_name_and_pass(copy):
    ran(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)


BOTH = """
import sys
from structure_first import cli
for words in ("sources", "run counting --scale smoke --out results --workers 1"):
    sys.argv = ["structure-first", *words.split()]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code
"""


def test_the_command_knows_both(copy):
    said = ran(copy, "-c", BOTH)
    assert "to count" in said and "\ncounted " in said


@pytest.mark.parametrize("chapter", ["01_procedural_data", "03_haystack_jump"])
def test_chapters_pass(copy, chapter):
    """Their cells, in order, without a kernel; figures are drawn, and shown nowhere."""
    cells = json.loads((copy / "book" / "chapters" / f"{chapter}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code.insert(1, f"scale, out = 'smoke', {str(copy / 'live')!r}")
    (copy / "book" / "chapters" / "cells.py").write_text("\n".join(code))
    command = "import runpy, os; from structure_first.runs import runner; runner.worker_count = lambda *_: 1; "
    command += "os.chdir('book/chapters'); runpy.run_path('cells.py', run_name='__main__')"
    ran(copy, "-c", command, STRUCTURE_FIRST_BOOK="1")
