"""The build: stage the sources, execute the chapters with papermill, render with Jupyter Book, swap the pages in.

Nothing under `book/` but `book/_build/` is ever written:

    _build/staging/          the copy that is rendered: pages, executed chapters, `_generated/`, plotly.js
    _build/executed/SCALE/   each chapter as it last ran
    _build/live/SCALE/       the rows that the chapters computed (their parameter `out`)
    _build/logs/             a failed chapter's traceback; what Jupyter Book said
    _build/html/             the book; replaced only by one that is complete
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from tqdm import tqdm

from structure_first.errors import UserError, unknown
from structure_first.files import replacing
from structure_first.scales import SCALES

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def build(
    scale: str = "laptop",
    chapter: str | None = None,
    root: Path = Path("."),
    fragments: Callable[[Path], Mapping[str, str]] | None = None,
) -> Path:
    """Build the book of `root` and return its first page, `book/_build/html/index.html`.

    With `chapter` ("03", or the notebook's whole name) only that one is sure to run; another keeps its last run if that
    was at the same scale from the same notebook, whatever the package's code has become since, and runs otherwise.
    `fragments` maps the folder of reference results to computed pages, written as `_generated/NAME.md`.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    book = Path(root).resolve() / "book"
    notebooks = _notebooks(book)
    chosen = _choose(chapter, notebooks)
    if fragments is None:
        from structure_first.book.pages import fragments
    work = book / "_build"
    pages = fragments(book / "results")
    try:
        work.mkdir(exist_ok=True)
        with _alone(work):
            _restore(work / "html")
            staging = _stage(book, work / "staging", pages)
            _execute(notebooks, chosen, scale, book, staging)
            return _swap_in(_render(staging, work), work / "html") / "index.html"
    except OSError as error:
        raise UserError(f"cannot build the book: {error.filename or work}: {error.strerror or error}") from error


def _notebooks(book: Path) -> dict[str, Path]:
    """The notebooks that the table of contents names, by their path in the book without its ending."""

    def files(entry) -> Iterator[str]:
        if isinstance(entry, list):
            for item in entry:
                yield from files(item)
        elif isinstance(entry, dict):
            yield from (entry[key] for key in ("root", "file") if key in entry)
            yield from files([entry[key] for key in ("parts", "chapters", "sections") if key in entry])

    config, toc = book.parent / "_config.yml", book / "_toc.yml"
    for needed in (config, toc):
        if not needed.is_file():
            raise UserError(f"{needed} does not exist; run this from the top of the repository")
    try:
        names = list(files(yaml.safe_load(toc.read_text())))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{toc} is not valid YAML: {' '.join(str(error).split())}") from error
    if not names:
        raise UserError(f"{toc} lists no page; write root: intro, and chapters")
    for name in names:
        if not any((book / f"{name}{ending}").is_file() for ending in (".md", ".ipynb")):
            raise UserError(f"{toc} lists {name}, but there is no {name}.md or {name}.ipynb beside it")
    found = {name: book / f"{name}.ipynb" for name in names if (book / f"{name}.ipynb").is_file()}
    for name, path in list(found.items()):
        cells = _read(path).cells
        if any("parameters" in cell.metadata.get("tags", ()) for cell in cells):
            continue
        if name != names[0] or any(cell.cell_type == "code" for cell in cells):
            raise UserError(f"book/{name}.ipynb has no cell tagged 'parameters'; give it one that sets scale and out")
        del found[name]  # a first page of text alone is rendered as it is
    return found


def _choose(chapter: str | None, notebooks: Mapping[str, Path]) -> set[str]:
    """The notebooks that must run."""
    if chapter is None:
        return set(notebooks)
    stems = {name: Path(name).name for name in notebooks}
    chosen = {name for name, stem in stems.items() if chapter == stem or chapter.zfill(2) == stem.partition("_")[0]}
    if not chosen:
        raise unknown("chapter", chapter, (stem.partition("_")[0] for stem in stems.values()))
    return chosen


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the build folder, so that two builds never mix their pages; a killed build holds nothing."""
    import fcntl

    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another build is running in {work}; wait for it") from error
        yield


def _stage(book: Path, staging: Path, pages: Mapping[str, str]) -> Path:
    import plotly

    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(book, staging, ignore=shutil.ignore_patterns("_build", ".ipynb_checkpoints"))
    shutil.copy2(book.parent / "_config.yml", staging)
    (staging / "_static").mkdir(exist_ok=True)
    shutil.copy2(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", staging / "_static")
    generated = staging / "_generated"
    generated.mkdir(exist_ok=True)
    for name, text in pages.items():
        (generated / f"{name}.md").write_text(text)
    return staging


def _execute(notebooks: Mapping[str, Path], chosen: set[str], scale: str, book: Path, staging: Path) -> None:
    import nbformat

    with tqdm(notebooks.items(), unit="chapter", disable=None) as progress:
        for name, path in progress:
            progress.set_description(Path(name).name)
            done = book / "_build" / "executed" / scale / f"{name}.ipynb"
            source = hashlib.sha256(path.read_bytes()).hexdigest()
            if name in chosen or not done.is_file() or _read(done).metadata.get("structure_first_source") != source:
                notebook = _run(name, path, scale, book / "_build", (staging / name).parent)
                notebook.metadata["structure_first_source"] = source
                with replacing(done) as partial:
                    nbformat.write(notebook, partial)
            shutil.copy2(done, staging / f"{name}.ipynb")


def _read(path: Path):
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.ValidationError, ValueError, AttributeError, TypeError, KeyError, OSError) as error:
        raise UserError(f"{path} is not a Jupyter notebook") from error


def _run(name: str, path: Path, scale: str, work: Path, cwd: Path):
    """Execute one notebook from the staged copy's folder; papermill's own parameters cell takes the author's place."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook
    from traitlets.config import Config

    source = _read(path)
    live = work / "live" / scale
    live.mkdir(parents=True, exist_ok=True)
    try:
        with (
            TemporaryDirectory() as scratch,
            _environment(
                STRUCTURE_FIRST_BOOK="1",
                PYTHONSAFEPATH="1",  # nothing that lies beside a chapter,
                IPYTHONDIR=scratch,  # no start-up files of the user's,
                JUPYTER_PATH="",  # and no "python3" kernel of theirs: the one of this environment
                JUPYTER_PREFER_ENV_PATH="1",
            ),
        ):
            sockets = {"transport": "ipc", "connection_file": f"{scratch}/kernel.json"}
            notebook = execute_notebook(
                source,
                None,
                # relative, since the page shows it
                parameters={"scale": scale, "out": os.path.relpath(live, cwd)},
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=cwd,
                config=Config(KernelManager=sockets),
                extra_arguments=["--log-level=CRITICAL"],  # it calls its own shutdown an error
            )
    except PapermillExecutionError as error:
        log = _log(work, Path(name).name, "\n".join(error.traceback))
        # papermill has put its own cell behind the parameters; count the author's cells, from one
        tagged = next(i for i, cell in enumerate(source.cells) if "parameters" in cell.metadata.get("tags", ()))
        number = error.cell_index + (error.cell_index <= tagged)
        message = _ANSI.sub("", f"{error.ename}: {error.evalue}").strip().splitlines()[0]
        raise UserError(f"book/{name}.ipynb, cell {number}: {message}  (traceback: {log})") from None
    except DeadKernelError as error:
        raise UserError(f"book/{name}.ipynb: its kernel died; is there enough memory?") from error
    del notebook.metadata["papermill"]  # names this machine's folders
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "parameters" in cell.metadata.get("tags", ()):
            cell.metadata["tags"].append("remove-cell")
    return notebook


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _log(work: Path, name: str, text: str) -> Path:
    path = work / "logs" / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_ANSI.sub("", text) + "\n")
    return path


def _render(staging: Path, work: Path) -> Path:
    """The pages, whole and without a warning, in a folder of their own."""
    fresh = work / "next"
    shutil.rmtree(fresh, ignore_errors=True)
    jupyter_book = [sys.executable, "-P", "-c", "from jupyter_book.cli.main import main; main()"]
    said = subprocess.run(
        [*jupyter_book, "build", staging, "--path-output", fresh, "-W", "--keep-going", "-q"],
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    html = fresh / "_build" / "html"
    text = _ANSI.sub("", said.stdout).replace(f"{staging}{os.sep}", "book/")
    log = _log(work, "sphinx", text)
    warnings = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL): ", line)]
    if warnings:
        more = f"  (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        raise UserError(f"{warnings[0]}{more}  (all of it: {log})")
    if said.returncode or not (html / "index.html").is_file():
        reason = re.search(r"^[\w.]*(Error|Exception): .+", text, re.MULTILINE)
        raise UserError(f"Jupyter Book failed: {reason[0] if reason else 'it gave no reason'}  (all of it: {log})")
    if remote := remote_resources(html):
        raise UserError(f"the book must draw without a network, but loads {remote[0]}")
    return html


def _restore(html: Path) -> None:
    """Bring back the book that a build killed between two renames had put aside."""
    if not html.exists() and (previous := html.with_name("html.previous")).exists():
        previous.rename(html)


def _swap_in(fresh: Path, html: Path) -> Path:
    previous = html.with_name("html.previous")
    if html.exists():
        shutil.rmtree(previous, ignore_errors=True)
        html.rename(previous)
    fresh.rename(html)
    shutil.rmtree(previous, ignore_errors=True)
    return html


def remote_resources(html: Path) -> list[str]:
    """What the pages and style sheets below `html` would fetch from another host, each as "PAGE: ADDRESS"."""
    found = []
    for path in sorted(html.rglob("*")):
        if path.suffix == ".html":
            page = _Resources()
            page.feed(path.read_text())
            addresses = page.addresses
        elif path.suffix == ".css":
            addresses = _in_style(path.read_text())
        else:
            continue
        found += [f"{path.relative_to(html)}: {it}" for it in addresses if re.match(r"(https?:)?//", it.strip(), re.I)]
    return found


def _in_style(css: str) -> list[str]:
    return [a or b for a, b in re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", css)]


class _Resources(HTMLParser):
    """Collects the addresses that a browser fetches by itself; a link that waits for a click is none."""

    _fetched_links = frozenset(
        ["stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self._style = False

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self._style = tag == "style"
        self.addresses += [values[name] for name in ("src", "poster", "data") if name in values]
        self.addresses += [part.split()[0] for part in values.get("srcset", "").split(",") if part.split()]
        if tag == "link" and self._fetched_links & set(values.get("rel", "").lower().split()):
            self.addresses.append(values.get("href", ""))
        if tag in ("image", "use"):
            self.addresses += [values[name] for name in ("href", "xlink:href") if name in values]
        self.addresses += _in_style(values.get("style", ""))

    def handle_data(self, data):
        if self._style:
            self.addresses += _in_style(data)

    def handle_endtag(self, tag):
        self._style = False
