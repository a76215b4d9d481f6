"""The Python sources of pinned packages, and the English in them: two corpora that are the same on every machine.

`pinned.json.gz` lists the files with their digests. It holds what all wheels of a package have in common, so that it
serves each Python and each machine. When constraints.txt takes another version of one of these packages, raise both
their numbers in `versions.VERSIONS` and make the list of the wheels for several Pythons and machines:

    packages="networkx numpy pandas plotly sqlalchemy sympy torch"
    pip download --no-deps --only-binary :all: --python-version 3.13 -c constraints.txt -d wheels $packages
    python -m structure_first.data.corpora.pinned wheels
"""

import ast
import gzip
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from structure_first.errors import UserError
from structure_first.files import replacing

LIST = Path(__file__).with_name("pinned.json.gz")
OLDEST = 3, 11  # the Python whose syntax every file has
SHORTEST = 100  # characters of English in a docstring that is a document
AGAIN = "install the versions that constraints.txt pins"


class File(NamedTuple):
    """A file of the list."""

    package: str  # as constraints.txt pins it
    path: Path
    digest: str

    def text(self) -> str:
        """What it says; raises `UserError` where that is not what was pinned."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path} of {self.package} ({error.strerror}); {AGAIN}") from None
        if short_digest(content) != self.digest:
            raise UserError(f"{self.path} is not the file of {self.package}; {AGAIN}")
        return content.decode()


def short_digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


@cache
def listed() -> dict[str, dict[str, tuple[int, str]]]:
    """The size and the digest of each file, by package and path."""
    return json.loads(gzip.decompress(LIST.read_bytes()))


def files(seed: int) -> list[File]:
    """Every file in an order that depends on `seed` and the names alone; raises `UserError` if one is not in its place.

    The order mixes the packages, so that a part of the corpus is like the whole of it. What has the right name and size
    is told by its digest when it is read.
    """
    by_path = {}
    for package, files in listed().items():
        name, _, version = package.partition("==")
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise UserError(f"code and language are made from {package}, which is not installed; {AGAIN}") from None
        if installed.version.partition("+")[0] != version:
            raise UserError(f"code and language are made from {package}, not {installed.version}; {AGAIN}")
        root = Path(str(installed.locate_file("")))
        for path, (size, digest) in files.items():
            by_path[path] = file = File(package, root / path, digest)
            if not file.path.is_file() or file.path.stat().st_size != size:
                raise UserError(f"{file.path} is not there as {package} has it; {AGAIN}")
    return [by_path[path] for path in sorted(by_path, key=lambda path: blake2b(f"{seed} {path}".encode()).digest())]


def sources(pinned_files: Iterable[File]) -> Iterator[str]:
    """Whole files, but for those that look generated: CodeParrot's filters of long lines and few letters."""
    for file in pinned_files:
        text = file.text()
        lines = text.split("\n")
        longest, letters = max(map(len, lines)), len(re.findall(r"[a-zA-Z0-9]", text))
        if longest <= 1000 and len(text) <= 100 * len(lines) and letters >= 0.25 * len(text):
            yield text


def docstrings(pinned_files: Iterable[File]) -> Iterator[str]:
    """The English in each docstring, a paragraph a line."""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for file in pinned_files:
        for node in ast.walk(parsed(file.text())):
            if isinstance(node, documented) and (docstring := ast.get_docstring(node, clean=False)):
                paragraphs = filter(english, re.split(r"\n\s*\n", docstring))
                document = "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
                if len(document) >= SHORTEST:
                    yield document


def parsed(text: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):
        return ast.parse(text, feature_version=OLDEST)


def english(paragraph: str) -> bool:
    """Whether this is prose: five words and a sentence's end (C4's filter), mostly letters, no list of arguments."""
    words = paragraph.split()
    text = " ".join(words)
    whole = text[:1].isalpha() and text.endswith((".", "!", "?")) and len(words) >= 5
    headed = re.search(r":\s*\n|---", paragraph)
    return whole and not headed and len(re.findall(r"[a-zA-Z ]", text)) >= 0.9 * len(text)


def pin(wheels: Iterable[Path]) -> None:
    """Make the list: the files that all wheels of a package hold alike, in UTF-8 and the oldest Python's syntax."""
    common: dict[str, dict[str, tuple[int, str]]] = {}
    for wheel in sorted(wheels):
        name, version = wheel.name.split("-")[:2]
        package = f"{name.lower()}=={version.partition('+')[0]}"
        with ZipFile(wheel) as archive:
            paths = [path for path in sorted(archive.namelist()) if path.endswith(".py") and ".data/" not in path]
            contents = {path: archive.read(path) for path in paths}
        known = common.get(package)
        mine = {path: (len(content), short_digest(content)) for path, content in contents.items() if legible(content)}
        common[package] = {path: entry for path, entry in mine.items() if known is None or known.get(path) == entry}
    with replacing(LIST) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(common, indent=0).encode(), mtime=0))
    listed.cache_clear()


def legible(content: bytes) -> bool:
    try:
        return bool(content and parsed(content.decode()))
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False


if __name__ == "__main__":
    pin(Path(sys.argv[1]).glob("*.whl"))
