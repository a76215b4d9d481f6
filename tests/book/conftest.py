"""A book of two pages in the real frame: this repository's configuration and its static files; and a browser."""

import ast
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from selenium import webdriver

from structure_first.book.build import build

FRAME = Path(__file__).parents[2]
CHECKED = ("exercise", "visible-test", "solution")  # tags, in their order
PARAMETERS = 'scale = "laptop"\nout = "../_build/live/laptop"'

INTRO = """# A tiny book

What is known: {cite}`jiang2026procedural`, and $p(x) = \\sum_i \\frac{1}{Z} e^{-x_i}$.

```{include} _generated/claims.md
```

$$
\\begin{aligned} a &= b \\\\ c &= \\operatorname{softmax}(QK^\\top) \\end{aligned}
$$ (key)

Equation {eq}`key`, and [](chapters/01_tiny).

```{bibliography}
```
"""

EXERCISE = """## An exercise

```{exercise}
:label: tiny-exercise
What is two and two?
```

```{solution} tiny-exercise
:class: dropdown
Four.
```
"""

FIGURE = {
    "data": [
        {"type": "scatter", "x": [1, 2, 3], "y": [3, 1, 2], "name": "seed 0"},
        {"type": "scatter", "x": [1, 2, 3], "y": [1, 1, 2], "name": "seed 1"},
    ],
    "layout": {"title": {"text": "A jump"}, "xaxis": {"title": {"text": "step"}}, "height": 300},
}
SHOW = f"""import plotly.graph_objects as go
from structure_first.book.figures.style import show
show(go.Figure({FIGURE["data"]}, {FIGURE["layout"]}), alt="a line that falls and rises", caption="A jump.")"""
COMPUTE = """from pathlib import Path
folder = Path(out)
with (folder / "runs.txt").open("a") as runs:
    runs.write(scale + "\\n")
print("computed at", scale)"""


def notebook(*cells: str, parameters: str | None = PARAMETERS) -> nbformat.NotebookNode:
    """A notebook of a title, the parameters cell and code cells; a cell that begins with '#' or '$' is Markdown."""
    new = nbformat.v4
    tagged = [new.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    rest = [new.new_markdown_cell(cell) if cell.startswith("#") else new.new_code_cell(cell) for cell in cells]
    return new.new_notebook(cells=[new.new_markdown_cell("# Tiny chapter"), *tagged, *rest])


class TinyBook:
    def __init__(self, root: Path, like: "TinyBook | None" = None):
        """A new one, or a copy of another with all that was built of it."""
        self.root, self.book = root, root / "book"
        self.html = self.book / "_build" / "html"
        if like:
            shutil.copytree(like.root, root, dirs_exist_ok=True)
            return
        (self.book / "chapters").mkdir(parents=True)
        (self.book / "results").mkdir()
        config = (FRAME / "_config.yml").read_text()
        (root / "_config.yml").write_text(re.sub(r"^  url: .*", '  url: ""', config, flags=re.MULTILINE))
        shutil.copy2(FRAME / "book" / "references.bib", self.book)
        shutil.copytree(FRAME / "book" / "_static", self.book / "_static")
        self.write("intro.md", INTRO)
        self.toc("01_tiny")
        self.chapter("01_tiny", COMPUTE, SHOW, EXERCISE)

    def write(self, name: str, text: str) -> None:
        (self.book / name).write_text(text)

    def toc(self, *stems: str) -> None:
        listed = "".join(f"  - file: chapters/{stem}\n" for stem in stems)
        self.write("_toc.yml", f"format: jb-book\nroot: intro\nchapters:\n{listed}")

    def chapter(self, stem: str, *cells: str, **options) -> None:
        nbformat.write(notebook(*cells, **options), self.book / "chapters" / f"{stem}.ipynb")

    def build(self, scale: str = "smoke", chapter: str | None = None, **options) -> Path:
        return build(scale, chapter, self.root, lambda results: {"claims": "A computed claim."}, **options)

    def sources(self) -> dict[str, bytes]:
        files = (path for path in self.root.rglob("*") if path.is_file() and "_build" not in path.parts)
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture
def tiny_book(tmp_path: Path) -> TinyBook:
    return TinyBook(tmp_path)


@pytest.fixture(scope="session")
def once_built(tmp_path_factory: pytest.TempPathFactory) -> TinyBook:
    """A book that is built; who changes it takes a copy."""
    book = TinyBook(tmp_path_factory.mktemp("once"))
    before = book.sources()
    assert book.build() == book.html / "index.html"
    assert book.sources() == before, "the sources are left alone"
    return book


@pytest.fixture(scope="session")
def new_book(once_built, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], TinyBook]:
    return lambda: TinyBook(tmp_path_factory.mktemp("book"), once_built)


@pytest.fixture
def built_book(once_built, tmp_path: Path) -> TinyBook:
    return TinyBook(tmp_path, once_built)


@pytest.fixture
def quick(monkeypatch):
    """Pages without the tables of settings and of the verbs, which take longer than all else."""
    monkeypatch.setattr("structure_first.book.pages.settings", lambda name: "")
    monkeypatch.setattr("structure_first.book.reference.verbs", lambda: "")


def _exercises(stem: str) -> tuple[list[tuple[str, str, str]], dict]:
    """A chapter's checked exercises, each the cell to fill, its visible test and the solution that it tests; and the
    names that they find: what the chapter imports, and its scale.
    """
    cells = nbformat.read(FRAME / "book" / "chapters" / f"{stem}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    checked = []
    for parts in zip(code, code[1:], code[2:], strict=False):
        tags = [set(CHECKED) & set(cell.metadata.get("tags", ())) for cell in parts]
        if "visible-test" in tags[1]:
            assert tags == [{tag} for tag in CHECKED], parts[1].id
            checked.append(tuple(cell.source for cell in parts))
    tree = ast.parse("\n".join(cell.source for cell in code))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict = {"scale": "smoke"}
    exec(compile(ast.Module(imports, []), stem, "exec"), names)
    return checked, names


@pytest.fixture
def programs() -> Callable[[str], list[str]]:
    """A chapter's solutions that stand as text: programs that train."""

    def of(stem: str) -> list[str]:
        cells = nbformat.read(FRAME / "book" / "chapters" / f"{stem}.ipynb", as_version=4).cells
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        return [code for text in prose for code in re.findall(r"~~~python\n(.*?)~~~", text, re.DOTALL)]

    return of


@pytest.fixture
def exercises() -> Callable[[str], tuple[list[tuple[str, str, str]], dict]]:
    return _exercises


@pytest.fixture
def answered(capsys) -> Callable[[str], dict]:
    """The names that a chapter's exercises leave, solved."""

    def solved(stem: str) -> dict:
        parts, names = _exercises(stem)
        for code in (code for exercise in parts for code in exercise):
            exec(code, names)
        capsys.readouterr()
        return names

    return solved


SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1280,1000",
]


def _missing(what: str) -> None:
    """Skip a test, but fail it in CI, whose machine has what it needs."""
    reason = f"{what} is not installed, so no page can be opened; apt-get install chromium chromium-driver"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    return _missing


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        _missing("Chromium" if not chromium else "ChromeDriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in [*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
