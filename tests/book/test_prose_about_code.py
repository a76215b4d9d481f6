"""What a chapter says about the code is true of the code that is there."""

import ast
import re
import signal
from inspect import getsource
from pathlib import Path

import nbformat
import pytest
import transformers

from structure_first.errors import UserError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "structure_first"
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.ipynb"))
MODEL = ROOT / "book" / "chapters" / "02_transformer_and_trainer.ipynb"
COLUMN = 88  # characters that a cell shows without a scroll bar
NAME = r"[A-Za-z_][\w.]*"


def cells(chapter: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(chapter, as_version=4).cells


def code(chapter: Path) -> str:
    return "\n".join(cell.source for cell in cells(chapter) if cell.cell_type == "code")


def quoted(prose: str) -> list[str]:
    """What stands in single backticks, roles of Markdown and blocks of code left out."""
    prose = re.sub(r"^(~~~|```)python\n.*?^\1", "", prose, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"\{\w+\}`[^`]*`", "", prose))


def names(source: str) -> set[str]:
    """Every name, attribute, argument and one-word string of a program."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for field in ("id", "attr", "arg", "name", "value"):
            if isinstance(word := getattr(node, field, None), str) and word.isidentifier():
                found.add(word)
    return found


def shown(chapter: Path) -> list[tuple[str, str]]:
    """Each source that `read` puts on the page, with the prose beside it.

    Beside it is the text above, from its last heading on, and the text below, up to its first.
    """
    tree, scope = ast.parse(code(chapter)), {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), str(chapter), "exec"), scope)
    around, found = cells(chapter), []
    for above, cell, below in zip(around, around[1:], around[2:], strict=False):
        read = re.search(r"^read\((.*)\)", cell.source, re.MULTILINE) if cell.cell_type == "code" else None
        if read:
            sources = "\n".join(getsource(eval(each, scope)) for each in read[1].split(", "))
            above, below = (each.source if each.cell_type == "markdown" else "" for each in (above, below))
            prose = re.split(r"^#+ ", above, flags=re.MULTILINE)[-1], re.split(r"^#+ ", below, flags=re.MULTILINE)[0]
            found.append((sources, "\n".join(prose)))
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_file_that_a_chapter_names_is_there(chapter):
    prose = "\n".join(cell.source for cell in cells(chapter) if cell.cell_type == "markdown")
    for path in (each for each in quoted(prose) if re.fullmatch(r"[\w/]+\.(py|yaml|yml|md)", each)):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_code_that_draws_is_folded_and_code_that_teaches_fits_its_column(chapter):
    for cell in cells(chapter):
        tags = set(cell.metadata.get("tags", ()))
        if cell.cell_type == "code" and not tags & {"hide-input", "parameters"}:
            assert "hide-cell" in tags or "alt=" not in cell.source, cell.source
            assert max(map(len, cell.source.splitlines())) <= COLUMN, cell.source


def test_every_name_in_the_chapter_about_the_model_is_one():
    known = names("\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))) | names(code(MODEL))
    known |= {*dir(signal), *dir(transformers)}
    prose = "\n".join(cell.source for cell in cells(MODEL) if cell.cell_type == "markdown")
    said = {each for each in quoted(prose) if re.fullmatch(rf"{NAME}(\(.*\))?", each)}
    assert {"to_hf", "forward_parts", "rearrange"} <= said
    for each in said:
        assert set(re.match(NAME, each)[0].split(".")) <= known | {"from_pretrained"}, each


def test_what_the_prose_sends_the_reader_to_is_in_the_code_beside_it():
    found = shown(MODEL)
    assert len(found) == len(re.findall(r"^read\(", code(MODEL), re.MULTILINE))
    said = 0
    for source, prose in found:
        for each in (each for each in quoted(prose) if re.fullmatch(rf"{NAME}(\(.*\))?", each)):
            assert re.search(rf"\b{re.escape(re.match(NAME, each)[0])}\b", source), f"{each!r} is not in\n{source}"
            said += 1
    assert said >= 5


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_scale_that_there_is_not_is_refused_before_anything_runs(chapter):
    start = next(at for at, cell in enumerate(cells(chapter)) if "parameters" in cell.metadata.get("tags", []))
    with pytest.raises(UserError, match="unknown scale 'lap'; did you mean 'laptop'"):
        exec(cells(chapter)[start + 1].source, {"scale": "lap", "out": "nowhere"})
