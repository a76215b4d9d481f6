"""The build: stage the sources, execute the chapters with papermill, render with Jupyter Book, swap the pages in.

Nothing under `book/` but `book/_build/` is ever written:

    _build/staging/          the copy that is rendered: pages, executed chapters, `_generated/`, plotly.js
    _build/executed/SCALE/   each chapter as it last ran
    _build/live/SCALE/       the rows that the chapters computed (their parameter `out`)
    _build/logs/             a failed chapter's traceback; what Jupyter Book said
    _build/html/             the book; replaced only by one that is complete
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from structure_first import scales
from structure_first.book import chapters, pages, repository
from structure_first.book.chapters import ANSI, log
from structure_first.book.resources import remote_resources
from structure_first.errors import UserError, check_known
from structure_first.files import locked

EDITIONS = ("full", "student")


def build(
    scale: str = "laptop",
    chapter: str | None = None,
    root: Path = Path("."),
    fragments: Callable[[Path], Mapping[str, str]] = pages.fragments,
    edition: str = "full",
) -> Path:
    """Build the book of `root` and return its first page, `book/_build/html/index.html`.

    A chapter that ran at that scale on all that it reads now does not run again. With `chapter` ("03", or the
    whole name of a notebook) that one is sure to run, and another only if its own notebook has changed.
    `fragments` maps the folder of reference results to computed pages, written as `_generated/NAME.md`.
    The `student` edition has no solutions.
    """
    scales.checked(scale)
    check_known("edition", edition, EDITIONS)
    book = Path(root).resolve() / "book"
    notebooks = chapters.notebooks(book)
    sure = chapters.chosen(chapter, notebooks)
    work = book / "_build"
    computed = fragments(book / "results")
    try:
        work.mkdir(exist_ok=True)
        with locked(work):
            _restore(work / "html")
            staging = _stage(book, work / "staging", computed)
            chapters.execute(notebooks, sure, scale, book, staging)
            (staging / "_generated" / "times.md").write_text(chapters.times(book, notebooks))
            if edition == "student":
                chapters.without_solutions(staging, notebooks)
            html = _render(staging, work)
            shutil.copytree(book / "results", html / pages.ROWS, ignore=shutil.ignore_patterns("weights", ".*"))
            return swap_in(html, work / "html") / "index.html"
    except OSError as error:
        raise UserError(f"cannot build the book: {error.filename or work}: {error.strerror or error}") from error


def _stage(book: Path, staging: Path, computed: Mapping[str, str]) -> Path:
    import plotly

    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(book, staging, ignore=shutil.ignore_patterns("_build", ".ipynb_checkpoints"))
    config = repository.configured(repository.read(book.parent), repository.modified(book))
    (staging / "_config.yml").write_text(yaml.safe_dump(config))
    (staging / "_static").mkdir(exist_ok=True)
    shutil.copy2(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", staging / "_static")
    generated = staging / "_generated"
    generated.mkdir(exist_ok=True)
    for name, text in computed.items():
        (generated / f"{name}.md").write_text(text)
    return staging


def _render(staging: Path, work: Path) -> Path:
    """The pages, whole and without a warning, in a folder of their own."""
    fresh = work / "next"
    shutil.rmtree(fresh, ignore_errors=True)
    code = "import structure_first.book, jupyter_book.cli.main as jupyter_book; jupyter_book.main()"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code, "build", staging, "--path-output", fresh, "-W", "--keep-going", "-q"],
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    html = fresh / "_build" / "html"
    text = ANSI.sub("", said.stdout).replace(f"{staging}{os.sep}", "book/")
    said_at = log(work, "sphinx", text)
    warnings = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL): ", line)]
    if warnings:
        more = f"  (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        raise UserError(f"{warnings[0]}{more}  (all of it: {said_at})")
    if said.returncode or not (html / "index.html").is_file():
        reason = re.search(r"^[\w.]*(Error|Exception): .+", text, re.MULTILINE)
        raise UserError(f"Jupyter Book failed: {reason[0] if reason else 'it gave no reason'}  (all of it: {said_at})")
    if remote := remote_resources(html):
        raise UserError(f"the book must draw without a network, but loads {remote[0]}")
    return html


def _restore(html: Path) -> None:
    """Bring back the book that a build killed between two renames had put aside."""
    if not html.exists() and (previous := html.with_name("html.previous")).exists():
        previous.rename(html)


def swap_in(fresh: Path, html: Path) -> Path:
    """Put a finished folder in the place of the last one."""
    previous = html.with_name(f"{html.name}.previous")
    if html.exists():
        shutil.rmtree(previous, ignore_errors=True)
        html.rename(previous)
    fresh.rename(html)
    shutil.rmtree(previous, ignore_errors=True)
    return html
