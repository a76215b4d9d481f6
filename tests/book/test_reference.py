"""The reference has what chapters, examples and the README use, all of it described; and it follows the code."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from structure_first.book import reference
from structure_first.data.registry import CHANGES, RULES
from structure_first.model import transfer
from structure_first.verbs import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "reference.md").read_text()
LISTED = dict(re.findall(r"^\.\. auto\w+:: (.*)\n(?:   :members:(.*))?", PAGE, re.MULTILINE))  # with chosen members
OWN = ("book", "bench", "analysis", "experiments", "model.kernels")  # what draws and times this book, and what is in it
INTERNAL = {  # which a chapter shows, so that a reader may read them
    "structure_first.model.transfer.RULES",  # a table of the page
    "structure_first.data.registry.RULES",
    *(f"structure_first.data.diagnostics.{name}" for name in ("KEY", "QUERY")),  # an exercise says what they are
    *(f"structure_first.model.transformer.{name}" for name in ("Attention", "Block", "Linear", "MLP", "Norm")),
}


def named(path: str):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def imported(code: str) -> set[str]:
    """What a program takes from the package, by its whole name; modules are left out."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    ours = {name for name in names if name.startswith("structure_first.")}
    foreign = tuple(f"structure_first.{part}." for part in OWN)
    return {name for name in ours if not name.startswith(foreign) and not is_module(name)}


def is_module(name: str) -> bool:
    return isinstance(named(name), ModuleType)


def programs() -> list[str]:
    chapters = [nbformat.read(path, as_version=4).cells for path in (ROOT / "book" / "chapters").glob("*.ipynb")]
    code = [cell.source for cells in chapters for cell in cells if cell.cell_type == "code"]
    prose = [cell.source for cells in chapters for cell in cells if cell.cell_type == "markdown"]
    solved = [each for text in prose for each in re.findall(r"~~~python\n(.*?)~~~", text, re.DOTALL)]
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [*code, *solved, *shown, *(path.read_text() for path in (ROOT / "examples").glob("*.py"))]


def test_what_chapters_examples_and_the_readme_use_is_there():
    used = set().union(*map(imported, programs())) - INTERNAL
    assert "structure_first.pretraining.warm.warm_up" in used and len(used) > 20
    assert used <= set(LISTED), f"not in reference.md: {sorted(used - set(LISTED))}"


@pytest.mark.parametrize("path", LISTED)
def test_what_is_there_says_what_it_is(path):
    found = named(path)
    own = inspect.getdoc(found) or ""
    assert own and not own.startswith(f"{found.__name__}("), f"{path} has no docstring but the one that Python makes"
    left_out = {"forward", *getattr(found, "__annotations__", ())}  # torch's; and fields
    for name, member in vars(found).items() if inspect.isclass(found) else ():
        shown = not name.startswith("_") and name not in left_out and name in (LISTED[path] or name)
        if shown and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            assert inspect.getdoc(member), f"{path}.{name} says nothing of itself"


def test_every_source_rule_and_verb_has_its_line():
    assert re.findall(r"^\| `([\w:+]+)`", reference.sources(), re.MULTILINE)[: len(RULES)] == list(RULES)
    assert all(f"| `{change}:NAME` |" in reference.sources() for change in CHANGES)
    assert re.findall(r"^\| `(.*?)` \|", reference.rules(), re.MULTILINE) == list(transfer.RULES)
    assert "| `mean` | every row the mean of stage one's rows | `embeddings`, `positions` |" in reference.rules()
    told = reference.verbs()
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert re.findall(r"^### `structure-first (.*)`$", told, re.MULTILINE) == verbs
    assert "* `--seed <int>`: fixes every token" in told


def test_a_changed_docstring_is_on_the_page_after_the_next_build(built_book, monkeypatch):
    tiny_book, modules = built_book, built_book.root / "modules"
    modules.mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{modules}", prepend=":")
    tiny_book.write("intro.md", "# A book\n\n```{eval-rst}\n.. autofunction:: tiny_module.f\n```\n")
    for words, shown in (("Before.", "<p>Before.</p>"), ("Later, `code`.", "<p>Later, <code")):
        (modules / "tiny_module.py").write_text(f'def f():\n    """{words}"""\n')
        tiny_book.build()
        page = (tiny_book.html / "intro.html").read_text()
        assert shown in page
    assert "Before." not in page
