"""What every machine has: the Python sources of the standard library and the installed packages."""

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from inspect import cleandoc
from pathlib import Path

SHORTEST = 100  # characters of English in a docstring that is a document


def files(seed: int) -> dict[str, Path]:
    """Every source by its name in the library, in an order that depends on `seed` and the names alone.

    The order mixes the packages, so that a part of the corpus is like the whole of it.
    """
    roots = dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    found = {}
    for root in roots:
        for folder, inside, names in os.walk(root):
            inside[:] = [name for name in inside if name not in ("site-packages", "__pycache__")]
            for name in names:
                if name.endswith(".py"):
                    path = Path(folder, name)
                    found.setdefault(path.relative_to(root).as_posix(), path)
    return dict(sorted(found.items(), key=lambda each: blake2b(f"{seed} {each[0]}".encode()).digest()))


def texts(found: list[Path]) -> Iterator[str]:
    """The files that can be read as UTF-8 and are not empty."""
    for path in found:
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            yield text


def sources(found: list[Path]) -> Iterator[str]:
    """Whole files, but for those that look generated: CodeParrot's filters of long lines and few letters."""
    for text in texts(found):
        lines = text.split("\n")
        longest, letters = max(map(len, lines)), len(re.findall(r"[a-zA-Z0-9]", text))
        if longest <= 1000 and len(text) <= 100 * len(lines) and letters >= 0.25 * len(text):
            yield text


def docstrings(found: list[Path]) -> Iterator[str]:
    """The English in each docstring, a paragraph a line."""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for text in texts(found):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, documented) and (said := ast.get_docstring(node, clean=False)):
                paragraphs = filter(english, re.split(r"\n\s*\n", cleandoc(said)))
                document = "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
                if len(document) >= SHORTEST:
                    yield document


def english(paragraph: str) -> bool:
    """Whether this is prose: five words and a sentence's end (C4's filter), mostly letters, no list of arguments."""
    words = paragraph.split()
    text = " ".join(words)
    whole = text[:1].isalpha() and text.endswith((".", "!", "?")) and len(words) >= 5
    headed = re.search(r":\s*\n|---", paragraph)
    return whole and not headed and len(re.findall(r"[a-zA-Z ]", text)) >= 0.9 * len(text)
