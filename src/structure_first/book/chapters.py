"""The chapters: which there are, and papermill running those whose last run is of other code, rows or words."""

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Set
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import nbformat
import pandas as pd
import yaml
from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml
from tqdm import tqdm

import structure_first
from structure_first.errors import UserError, reason, unknown
from structure_first.files import replacing
from structure_first.scales import SCALES

SOLUTION = re.compile(r"^(`{3,}|:{3,})\{(?:solution\}|dropdown\} Answers).*?^\1[ ]*$\n?", re.DOTALL | re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# In no page, but in the file that a page's button gives away.
DOWNLOADED = """*To run this notebook: in a clone of the repository give `make book SCALE=smoke` once, which installs
what it needs; put the notebook into `book/chapters` under another name; open it with
`.venv/bin/jupyter lab book/chapters`. What stands in the cell of its parameters, `scale` and `out`, is yours to
change.*"""


def listed(book: Path) -> list[str]:
    """The pages that the table of contents names, by their path in the book without its ending; all are there."""
    config, toc = book.parent / "_config.yml", book / "_toc.yml"
    for needed in (config, toc):
        if not needed.is_file():
            raise UserError(f"{needed} does not exist; run this from the top of the repository")
    try:
        names = list(parse_toc_yaml(toc))
    except (yaml.YAMLError, MalformedError, OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read {toc}: {reason(error)}") from error
    for name in names:
        if not any((book / f"{name}{ending}").is_file() for ending in (".md", ".ipynb")):
            raise UserError(f"{toc} lists {name}, but there is no {name}.md or {name}.ipynb beside it")
    return names


def notebooks(book: Path) -> dict[str, Path]:
    """Those of the pages that are notebooks."""
    names = listed(book)
    paths = {name: book / f"{name}.ipynb" for name in names if (book / f"{name}.ipynb").is_file()}
    for name, path in list(paths.items()):
        cells = read(path).cells
        if any("parameters" in cell.metadata.get("tags", ()) for cell in cells):
            continue
        if name != names[0] or any(cell.cell_type == "code" for cell in cells):
            raise UserError(f"book/{name}.ipynb has no cell tagged 'parameters'; give it one that sets scale and out")
        del paths[name]  # a first page of text alone is rendered as it is
    return paths


def chosen(chapter: str | None, notebooks: Mapping[str, Path]) -> set[str]:
    """The notebooks that run whatever they ran on last; raises `UserError` for a chapter that there is not."""
    if chapter is None:
        return set()
    stems = {name: Path(name).name for name in notebooks}
    matching = {name for name, stem in stems.items() if chapter == stem or chapter.zfill(2) == stem.partition("_")[0]}
    if not matching:
        raise unknown("chapter", chapter, (stem.partition("_")[0] for stem in stems.values()))
    return matching


def execute(notebooks: Mapping[str, Path], sure: Set[str], scale: str, book: Path, staging: Path) -> None:
    """Put each chapter, as it ran at that scale, into the staged copy of the book.

    What it took stands under its title. One that ran on the same notebook, code, packages, rows and claims does not run
    again, unless it is `sure` to; where some are, the others do only if their notebook has changed.
    """
    depends = _inputs(book)
    with tqdm(notebooks.items(), unit="chapter", disable=None) as progress:
        for name, path in progress:
            progress.set_description(Path(name).name)
            done = ran(book, scale, name)
            now = {"notebook": hashlib.sha256(path.read_bytes()).hexdigest(), "inputs": depends}
            notebook = read(done) if done.is_file() else nbformat.v4.new_notebook()
            before = notebook.metadata.get("structure_first", {})
            looked_at = {"notebook"} if sure else now.keys()
            if name in sure or any(before.get(each) != now[each] for each in looked_at):
                notebook = _run(name, path, scale, book / "_build", (staging / name).parent)
                notebook.metadata["structure_first"].update(now)
                with replacing(done) as partial:
                    nbformat.write(notebook, partial)
            first = notebook.cells[0]
            if seconds := notebook.metadata["structure_first"].get("seconds"):
                said = f"*Ran at scale `{scale}` in {lasted(seconds)}, on the machine that built this page.*"
                first.source = re.sub(r"\A(# .*)", rf"\1\n\n{said}", first.source)
            told = nbformat.v4.new_markdown_cell(DOWNLOADED, id="downloaded", metadata={"tags": ["remove-cell"]})
            notebook.cells.insert(1, told)
            nbformat.write(notebook, staging / f"{name}.ipynb")


def ran(book: Path, scale: str, name: str) -> Path:
    """The file of a chapter as it last ran at a scale."""
    return book / "_build" / "executed" / scale / f"{name}.ipynb"


def lasted(seconds: float) -> str:
    """A time in words."""
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def times(book: Path, notebooks: Iterable[str]) -> str:
    """What each chapter took when it last ran, at every scale at which it has, as a table in Markdown."""
    columns = {}
    for scale in SCALES:
        done = {name: read(path) for name in notebooks if (path := ran(book, scale, name)).is_file()}
        took = {name: each.metadata.get("structure_first", {}).get("seconds") for name, each in done.items()}
        columns[f"at scale `{scale}`, here"] = {f"[](/{name})": lasted(s) for name, s in took.items() if s}
    table = pd.DataFrame({head: column for head, column in columns.items() if column}).fillna("")
    return table.rename_axis("chapter").to_markdown() + "\n"


def without_solutions(staging: Path, notebooks: Iterable[str]) -> None:
    """Take the solutions and answers out of the staged chapters: the edition for students."""
    for path in (staging / f"{name}.ipynb" for name in notebooks):
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = SOLUTION.sub("", cell.source)
        kept = (cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ()))
        notebook.cells = [cell for cell in kept if cell.source.strip()]
        nbformat.write(notebook, path)


def _inputs(book: Path) -> str:
    """A digest of all that a chapter may read but its own notebook: code, packages, rows, claims and configurations."""
    package = Path(structure_first.__file__).parent
    files = [
        path
        for folder, ending in ((package, "*.py"), (book / "results", "*"), (book / "configs", "*"))
        for path in sorted(folder.rglob(ending))
    ]
    digest = hashlib.sha256(f"{sys.version} {sorted((each.name, each.version) for each in distributions())}".encode())
    for path in (*files, book / "claims.yml"):
        if path.is_file():
            digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def read(path: Path):
    """The notebook in a file; raises `UserError` if there is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.ValidationError, ValueError, AttributeError, TypeError, KeyError, OSError) as error:
        raise UserError(f"{path} is not a Jupyter notebook") from error


def _run(name: str, path: Path, scale: str, work: Path, cwd: Path):
    """Execute one notebook from the staged copy's folder; papermill's own parameters cell takes the author's place."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook
    from traitlets.config import Config

    source = read(path)
    live = work / "live" / scale
    live.mkdir(parents=True, exist_ok=True)
    try:
        with (
            TemporaryDirectory() as scratch,
            patch.dict(
                os.environ,
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
                parameters={"scale": scale, "out": (ran_in := os.path.relpath(live, cwd))},
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=cwd,
                config=Config(KernelManager=sockets),
                extra_arguments=["--log-level=CRITICAL"],  # it calls its own shutdown an error
            )
    except PapermillExecutionError as error:
        traced = log(work, Path(name).name, "\n".join(error.traceback))
        # papermill has put its own cell behind the parameters; count the author's cells, from one
        tagged = next(i for i, cell in enumerate(source.cells) if "parameters" in cell.metadata.get("tags", ()))
        number = error.cell_index + (error.cell_index <= tagged)
        message = ANSI.sub("", f"{error.ename}: {error.evalue}").strip().splitlines()[0]
        raise UserError(f"book/{name}.ipynb, cell {number}: {message}  (traceback: {traced})") from None
    except DeadKernelError as error:
        raise UserError(f"book/{name}.ipynb: its kernel died; is there enough memory?") from error
    measured = notebook.metadata.pop("papermill")  # which names this machine's folders
    notebook.metadata["structure_first"] = {"seconds": measured["duration"]}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "parameters" in cell.metadata.get("tags", ()):
            cell.metadata["tags"].append("remove-cell")
        elif "injected-parameters" in cell.metadata.get("tags", ()):  # as its reader would give it, beside the chapters
            cell.source = cell.source.replace(ran_in, os.path.relpath(live, path.parent))
    return notebook


def log(work: Path, name: str, text: str) -> Path:
    path = work / "logs" / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text(ANSI.sub("", text) + "\n")
    return path
