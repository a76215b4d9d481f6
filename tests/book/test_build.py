"""The build, on a book of two pages: what it writes, what it leaves alone, and how it fails."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from structure_first.book.resources import remote_resources
from structure_first.errors import UserError
from structure_first.files import locked

FRAME = Path(__file__).parents[2]


def page(book, name="chapters/01_tiny"):
    return (book.html / f"{name}.html").read_text()


def failure(book, **options) -> str:
    with pytest.raises(UserError) as caught:
        book.build(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_build_runs_the_chapters_and_leaves_the_sources_alone(once_built):
    tiny_book = once_built  # which asks after its sources
    assert (tiny_book.html / "index.html").is_file()
    text = page(tiny_book)
    assert "computed at smoke" in text
    assert "laptop" not in text, "the author's parameters cell is shown beside the one that ran"
    assert "Solution to" in text
    assert (tiny_book.book / "_build/live/smoke/runs.txt").read_text() == "smoke\n"
    intro = page(tiny_book, "intro")
    assert "A computed claim." in intro
    assert "<math" in intro
    assert "\\frac" in intro  # a formula's source goes with it
    served = [path for path in tiny_book.html.rglob("*") if path.suffix in {".html", ".ipynb", ".js"}]
    assert not [path for path in served if str(tiny_book.root) in path.read_text()], "pages name this machine's folders"
    downloaded = (tiny_book.html / "_sources/chapters/01_tiny.ipynb").read_text()
    assert "To run this notebook" in downloaded and "To run this notebook" not in text
    assert "Validation errors" not in (tiny_book.book / "_build/logs/sphinx.log").read_text()
    assert (tiny_book.html / "_static/plotly.min.js").stat().st_size > 1_000_000
    assert len(re.findall(r"<script[^>]* defer=\"defer\"[^>]*plotly\.min\.js", text)) == 1
    assert "plotly.min.js" not in intro, "a page without a figure loads it"
    assert len(text) < 100_000


@pytest.fixture
def unrendered(monkeypatch):
    """Builds that run the chapters and render no page."""

    def rendered(staging: Path, work: Path) -> Path:
        html = work / "next/_build/html"
        html.mkdir(parents=True)
        (html / "index.html").touch()
        return html

    monkeypatch.setattr("structure_first.book.build._render", rendered)


def test_one_chapter_runs_again_alone(tiny_book, unrendered):
    tiny_book.toc("01_tiny", "02_other")
    tiny_book.chapter("02_other", "from pathlib import Path; (Path(out) / 'other.txt').open('a').write('ran ')")
    live = tiny_book.book / "_build/live"
    tiny_book.build("smoke")
    tiny_book.build("smoke", chapter="01")
    assert (live / "smoke/runs.txt").read_text() == "smoke\n" * 2
    assert (live / "smoke/other.txt").read_text() == "ran "
    tiny_book.chapter("02_other", "print('rewritten')")  # an edited notebook never keeps its old run
    tiny_book.build("smoke", chapter="01_tiny")
    ran = nbformat.read(tiny_book.book / "_build/executed/smoke/chapters/02_other.ipynb", as_version=4)
    assert ran.cells[-1].outputs[0].text == "rewritten\n"
    tiny_book.build("laptop", chapter="2")  # nor does one of another scale
    assert (live / "laptop/runs.txt").read_text() == "laptop\n"


def test_a_chapter_runs_again_when_something_that_it_reads_has_changed(tiny_book, unrendered):
    def runs() -> int:
        tiny_book.build()
        return (tiny_book.book / "_build/live/smoke/runs.txt").read_text().count("smoke")

    assert [runs(), runs()] == [1, 1]
    (tiny_book.book / "results" / "rows.parquet").write_bytes(b"other rows")
    assert [runs(), runs()] == [2, 2]
    tiny_book.write("claims.yml", "[]")
    assert [runs(), runs()] == [3, 3]
    tiny_book.write("intro.md", "# A page that no chapter reads")
    assert runs() == 3


def test_a_table_that_a_chapter_says_is_a_table_on_its_page(tiny_book):
    say = "from structure_first.book.figures.style import say"
    tiny_book.chapter("01_tiny", f"{say}\nsay('All of *it*:\\n\\n| cell | inside |\\n|---|---|\\n| a / b | yes |')")
    tiny_book.build()
    assert re.search(r"All of <em>it</em>:</p>.*<table.*<td><p>a / b</p></td>", page(tiny_book), re.DOTALL)


def test_the_time_that_a_chapter_took_is_measured_and_kept_with_it(tiny_book):
    tiny_book.write("intro.md", "# A book\n\n```{include} _generated/times.md\n```\n")
    tiny_book.build()
    assert re.search(
        r"</h1>\s*<p><em>Ran at scale <code.*smoke.*</code> in \d+ seconds, on the machine", page(tiny_book)
    )
    ran = tiny_book.book / "_build/executed/smoke/chapters/01_tiny.ipynb"
    notebook = nbformat.read(ran, as_version=4)
    assert 0 < notebook.metadata["structure_first"]["seconds"] < 300
    notebook.metadata["structure_first"]["seconds"] = 754.2
    nbformat.write(notebook, ran)
    tiny_book.build()
    assert "</code> in 12.6 minutes, on the machine" in page(tiny_book), "a chapter that did not run again has another"
    elsewhere = ran.parents[2] / "gpu/chapters" / ran.name
    elsewhere.parent.mkdir(parents=True)
    notebook.metadata["structure_first"]["seconds"] = 75
    nbformat.write(notebook, elsewhere)
    tiny_book.build()
    told = r'smoke</.*gpu</.*href="chapters/01_tiny.html".*12\.6 minutes.*1\.2 minutes'
    assert re.search(told, page(tiny_book, "intro"), re.DOTALL), "every scale at which it has run"


def test_the_students_edition_has_no_solutions(tiny_book):
    flat = "# Flat\n\n```{exercise}\n:label: sum\nTwo and two?\n```\n\n```{solution} sum\nFour.\n```"
    code = "````{solution} more\n~~~python\nseven = 7\n~~~\n````"
    nested = f"# Nested\n\n````{{exercise}}\n:label: more\nWhat else?\n````\n\n{code}\n\nAfter it."
    questions = "# Five questions\n\n1. Who?\n\n:::{dropdown} Answers\n1. Nobody.\n:::"
    fill = "from structure_first.book.exercises import check\ndef two(): raise NotImplementedError"
    test = '@check\ndef test():\n    """one and one are two."""\n    assert two() == 2'
    solution = "def two(): return 2\ntest()"
    tiny_book.chapter("01_tiny", flat, nested, questions, fill, test, solution)
    chapter = tiny_book.book / "chapters/01_tiny.ipynb"
    filled = nbformat.read(chapter, as_version=4)
    filled.cells[-1].metadata["tags"] = ["solution", "hide-cell"]
    nbformat.write(filled, chapter)
    answers = ("Four.", "seven", "Nobody.", "right: one and one are two.", "Solution to")
    questions = ("Two and two", "What else?", "After it.", "Who?", "not yet: the cell above waits", "one are two.")
    tiny_book.build()
    assert all(words in page(tiny_book) for words in answers + questions)
    tiny_book.build(edition="student")
    assert all(words in page(tiny_book) for words in questions)
    served = (tiny_book.html / "_sources/chapters/01_tiny.ipynb").read_text()
    assert not any(words in text for words in answers for text in (page(tiny_book), served))
    assert "unknown edition" in failure(tiny_book, edition="teacher")


def test_a_failing_cell_is_named_and_the_last_book_stays(built_book):
    tiny_book, before = built_book, page(built_book)
    tiny_book.chapter("01_tiny", "one = 1", "# Some words", "raise ValueError('no such\\nluck')")
    message = failure(tiny_book)
    assert message.startswith("book/chapters/01_tiny.ipynb, cell 5: ValueError: no such  (traceback: ")
    log = tiny_book.book / "_build/logs/01_tiny.log"
    assert message.endswith(f"{log})")
    assert "Traceback" in log.read_text() and "\x1b" not in log.read_text()
    assert page(tiny_book) == before


def test_a_cell_before_the_parameters_is_counted_too(tiny_book):
    notebook = nbformat.read(tiny_book.book / "chapters/01_tiny.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(notebook, tiny_book.book / "chapters/01_tiny.ipynb")
    assert "cell 1: ZeroDivisionError: division by zero" in failure(tiny_book)


def test_a_kernel_that_dies_is_named(tiny_book):
    tiny_book.chapter("01_tiny", "import os; os._exit(1)")
    assert failure(tiny_book).startswith("book/chapters/01_tiny.ipynb: its kernel died")


def test_a_warning_fails_the_build_and_the_last_book_stays(built_book):
    tiny_book, before = built_book, page(built_book, "intro")
    tiny_book.write("intro.md", "# A tiny book\n\nSee [](nowhere.md) and $\\nosuchcommand{x}$.\n")
    message = failure(tiny_book)
    assert "book/intro.md" in message and "WARNING" in message and "sphinx.log" in message
    assert "nosuchcommand" in (tiny_book.book / "_build/logs/sphinx.log").read_text()
    assert page(tiny_book, "intro") == before


def test_what_would_need_the_network_fails_the_build(tiny_book):
    script = "from IPython.display import HTML; HTML('<script src=\"https://cdn.example/plotly.js\"></script>')"
    tiny_book.chapter("01_tiny", script)
    assert failure(tiny_book).endswith("chapters/01_tiny.html: https://cdn.example/plotly.js")


@pytest.mark.parametrize(
    "html",
    [
        '<img src="//host/a.png">',
        '<link rel="stylesheet" href="http://host/a.css">',
        '<link rel="preconnect" href="https://fonts.host">',
        '<img srcset="a.png 1x, https://host/a.png 2x">',
        "<style>@import 'https://host/a.css';</style>",
        '<p style="background: url(https://host/a.png)">',
        '<object data="https://host/a.svg"></object>',
    ],
)
def test_remote_resources_are_found(tmp_path, html):
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "local.html").write_text('<a href="https://host/">a link</a><img src="data:,"><script src="a.js">')
    assert len(remote_resources(tmp_path)) == 1


def test_a_notebook_without_a_parameters_cell_is_refused_before_anything_runs(tiny_book):
    tiny_book.toc("01_tiny", "02_other")
    tiny_book.chapter("02_other", "1", parameters=None)
    message = failure(tiny_book)
    assert message.startswith("book/chapters/02_other.ipynb has no cell tagged 'parameters'")
    assert not (tiny_book.book / "_build").exists()


def test_a_first_page_may_be_a_notebook(tiny_book):
    (tiny_book.book / "intro.md").unlink()
    text = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Only words")])
    nbformat.write(text, tiny_book.book / "intro.ipynb")
    tiny_book.build(chapter="01")
    assert "Only words" in page(tiny_book, "intro")
    text.cells.append(nbformat.v4.new_code_cell("1"))
    nbformat.write(text, tiny_book.book / "intro.ipynb")
    assert failure(tiny_book).startswith("book/intro.ipynb has no cell tagged 'parameters'")


def test_bad_input_is_one_line(tiny_book):
    assert failure(tiny_book, scale="smok") == "unknown scale 'smok'; did you mean 'smoke'?"
    assert failure(tiny_book, chapter="09").startswith("unknown chapter '09'")
    tiny_book.toc("01_tiny", "07_missing")
    assert "07_missing" in failure(tiny_book)
    tiny_book.toc("01_tiny")
    (tiny_book.book / "chapters/01_tiny.ipynb").write_text('{"cells": [')
    assert failure(tiny_book).endswith("01_tiny.ipynb is not a Jupyter notebook")
    (tiny_book.root / "_config.yml").unlink()
    assert "top of the repository" in failure(tiny_book)


def test_a_broken_configuration_is_one_line(tiny_book):
    config = tiny_book.root / "_config.yml"
    config.write_text(config.read_text().replace("- myst_nb", "- no_such_extension"))
    assert "no_such_extension" in failure(tiny_book)


def test_two_builds_do_not_mix(tiny_book):
    with locked(tiny_book.book / "_build"):
        assert failure(tiny_book).startswith("another process is writing to")


def test_a_build_killed_between_two_renames_keeps_the_last_book(built_book):
    tiny_book = built_book
    tiny_book.html.rename(tiny_book.html.with_name("html.previous"))
    tiny_book.chapter("01_tiny", "1 / 0")
    failure(tiny_book)
    assert "computed at smoke" in page(tiny_book)


def test_the_users_own_kernels_and_modules_are_left_out(tiny_book, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "kernels/python3").mkdir(parents=True)
    (folder / "kernels/python3/kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "x"}')
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.chdir(tiny_book.root)
    for name in ("jupyter_book.py", "book/chapters/ipykernel_launcher.py"):
        (tiny_book.root / name).write_text("raise SystemExit('what lies in the current folder ran')")
    tiny_book.chapter("01_tiny", "import sys; print(sys.prefix)", "import os; os.environ['STRUCTURE_FIRST_BOOK']")
    tiny_book.build()
    assert sys.prefix in page(tiny_book)


def test_chapters_are_stored_without_outputs():
    for path in sorted((FRAME / "book/chapters").glob("*.ipynb")):
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code), f"clear the outputs of {path.name}"
