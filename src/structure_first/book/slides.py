"""Slides: the marked cells of executed chapters as reveal.js decks, a deck a chapter, that need no network.

A cell is marked by its metadata `slideshow`: with `slide_type` "slide" it begins a slide, as a "fragment" it goes on
with the one before. Beside that may stand a `title`, else the heading above is taken; a `text` in Markdown, in place of
a cell's words or above its outputs; and `at`, which is "end" for what a page says first and a talk last. Words come
from the notebook, outputs from its last run.
"""

import io
import re
import shutil
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly
from nbformat import NotebookNode

from structure_first.book import chapters
from structure_first.book.build import swap_in
from structure_first.book.resources import remote_resources
from structure_first.errors import UserError

HEADING = re.compile(r"^#+ (.+)\n?", re.MULTILINE)
SCRIPTS = ["plotly.min.js", "gpt2.js", "ask.js", "slides.js"]
SETTINGS = {
    "project": "Structure First",
    "extensions": ["myst_parser", "sphinx_design", "sphinx_revealjs", "structure_first.book"],
    "html_copy_source": False,
    "html_math_renderer": "mathml",
    "myst_enable_extensions": ["amsmath", "colon_fence", "deflist", "dollarmath"],
    "revealjs_static_path": ["_static"],
    "revealjs_style_theme": "slides.css",
    "revealjs_css_files": ["ask.css"],
    "revealjs_js_files": SCRIPTS,
    "revealjs_script_conf": {
        "width": 1280,
        "height": 720,
        "margin": 0,
        "center": False,
        "hash": True,
        "slideNumber": "c/t",
        "transition": "none",
    },
}


def slides(scale: str = "laptop", root: Path = Path(".")) -> Path:
    """Make the decks of the chapters of `root` that have marked cells, and return `book/_build/slides/index.html`.

    Raises `UserError` for a chapter that has not run at `scale`, or of which a marked cell was changed since.
    """
    if find_spec("sphinx_revealjs") is None:
        raise UserError("sphinx-revealjs is not installed; pip install sphinx-revealjs")
    book = Path(root).resolve() / "book"
    work = book / "_build"
    decks = {}
    for name, path in chapters.notebooks(book).items():
        ran = chapters.ran(book, scale, name)
        if not ran.is_file():
            raise UserError(f"{name} has not run at {scale}; build the book first: make book SCALE={scale}")
        if text := _deck(name, chapters.read(path).cells, chapters.read(ran).cells):
            decks[Path(name).name] = text
    if not decks:
        raise UserError('no cell is marked; give some the metadata "slideshow": {"slide_type": "slide"}')
    with TemporaryDirectory(dir=work) as folder:
        return swap_in(_rendered(decks, book, Path(folder)), work / "slides") / "index.html"


def _deck(name: str, cells: list[NotebookNode], ran: list[NotebookNode]) -> str:
    """The Markdown of a chapter's deck: its title, and a section for each slide; empty if none is marked."""
    executed = {cell.id: cell for cell in ran if cell.cell_type == "code"}
    slides, heading = [], ""
    for cell in cells:
        headings = HEADING.findall(cell.source) if cell.cell_type == "markdown" else []
        mark = cell.metadata.get("slideshow", {})
        kind = mark.get("slide_type")
        if not heading and headings:
            slides.append((False, [f"# {headings[0]}"]))
        elif kind == "slide":
            slides.append((mark.get("at") == "end", [f"## {mark.get('title', (headings or [heading])[0])}"]))
        heading = headings[-1] if headings else heading
        if kind not in ("slide", "fragment"):
            continue
        pieces = slides[-1][1]
        if "text" in mark:
            pieces.append(mark["text"])
        elif cell.cell_type == "markdown":
            pieces.append(chapters.SOLUTION.sub("", HEADING.sub("", cell.source)))
        if cell.cell_type == "code":
            if cell.id not in executed or executed[cell.id].source != cell.source:
                raise UserError(f"{name}: cell {cell.id} was changed since it ran; build the book again")
            outputs = [_shown(output) for output in executed[cell.id].outputs]
            figures = [i for i, shown in enumerate(outputs, 1) if "<figure" in shown]
            pieces += outputs[: figures[-1]] if figures else outputs  # a figure needs the room of what comes after it
    slides.sort(key=lambda slide: slide[0])
    return "\n\n".join(piece for _, pieces in slides for piece in pieces) if len(slides) > 1 else ""


def _shown(output: NotebookNode) -> str:
    """An output as Markdown."""
    if output.output_type == "stream":
        return f"```text\n{output.text}```"
    data = output.get("data", {})
    if "text/markdown" in data:
        return data["text/markdown"]
    return f"~~~~~{{raw}} html\n{data.get('text/html', '')}\n~~~~~"


def _rendered(decks: dict[str, str], book: Path, folder: Path) -> Path:
    """The decks and a first page that lists them, whole and without a warning, in a folder of their own."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source, fresh = folder / "source", folder / "slides"
    shutil.copytree(book / "_static", source / "_static")
    shutil.copytree(book / "_slides", source / "_static", dirs_exist_ok=True)
    shutil.copy2(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", source / "_static")
    listed = "\n".join(f"- [{HEADING.findall(text)[0]}]({stem}.md)" for stem, text in decks.items())
    for stem, text in {**decks, "index": f"# Structure First\n\n## Slides\n\n{listed}"}.items():
        (source / f"{stem}.md").write_text(f"---\norphan: true\n---\n\n{text}\n")
    warnings = io.StringIO()
    with docutils_namespace():
        folders = (source, None, fresh, folder / "doctrees")
        Sphinx(*folders, "revealjs", deepcopy(SETTINGS), status=None, warning=warnings).build()
    if lines := chapters.ANSI.sub("", warnings.getvalue()).replace(f"{source}/", "").splitlines():
        raise UserError(f"slides: {lines[0]}")
    for unused in ("dist/theme", "plugin", "css"):  # with addresses that nothing here asks for
        shutil.rmtree(fresh / "_static" / "revealjs" / unused, ignore_errors=True)
    if remote := remote_resources(fresh):
        raise UserError(f"slides must be shown without a network, but load {remote[0]}")
    return fresh
