"""Every corpus by name, or by a path, as one stream of documents."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from itertools import islice
from pathlib import Path

from structure_first.data.corpora import hub, mathematics, paths, pinned
from structure_first.errors import UserError, unknown
from structure_first.versions import VERSIONS

LOCAL = {"language": pinned.docstrings, "code": pinned.sources}
GONE = {f"{name}@1" for name in LOCAL}  # whatever Python files were installed: nobody can make them again
NAMES = (*LOCAL, "math", *(f"math:{split}" for split in mathematics.SPLITS), *hub.HUB, "hub:OWNER/NAME")


@dataclass
class Documents(Iterator[str]):
    """The documents of a corpus in an order of their own, and where the stream is."""

    source: dict  # what they are, in what JSON can hold; `same` compares
    texts: Iterator[str]
    position: int = 0  # how many have been read
    endless: bool = False
    at: Callable[[], dict] = field(default=dict)  # more to know where the stream is
    files: list[Path] = field(default_factory=list)  # of the user's

    def __next__(self) -> str:
        text = next(self.texts)
        self.position += 1
        return text

    def state(self) -> dict:
        """Where to go on, in what JSON can hold; `documents` takes it."""
        return {"position": self.position} | self.at()


def documents(
    corpus: str | Path, text_column: str | None = None, seed: int = 0, state: dict | None = None
) -> Documents:
    """The documents of a corpus: a name, `hub:OWNER/NAME`, or the path of a file, a folder or a glob.

    `text_column` is the column of JSON lines, Parquet and the hub; left out it is `text`, of codeparrot `content`.
    `seed` makes the questions of `math` and orders the files of `language` and `code`. `state` is what a stream of the
    same corpus gave out.
    Until the first document is asked for, nothing is read but names.
    """
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    name, state = readable(str(corpus)), state or {"position": 0}
    position = state["position"]
    kind, _, rest = name.partition(":")
    if name in hub.HUB or kind == "hub":
        chosen = hub.HUB.get(name) or hub.Hub(rest)
        column = text_column or chosen.column
        texts, place = hub.stream(chosen, column, state.get("stream"))
        origin = {"corpus": name, "hub": chosen.name, "config": chosen.config, "column": column}
        return Documents(origin, texts, position, at=lambda: {"stream": place()})
    source: dict = {"corpus": name}
    if kind == "math":
        texts = mathematics.questions(rest or "train", seed, position)
        return Documents(source | {"seed": seed}, texts, position, endless=True)
    if name in LOCAL:
        source |= {"seed": seed, "version": VERSIONS[name], "files": short_digest(pinned.listed())}
        user_files, texts = [], LOCAL[name](pinned.files(seed))
    else:
        user_files, column = files(name), text_column or "text"
        source |= {"column": column} | file_stats(user_files)
        texts = paths.texts(user_files, column)
    return Documents(source, islice(texts, position, None), position, files=user_files)


def readable(name: str) -> str:
    """The name of a corpus that can be read; raises `UserError` for one that could be once."""
    if name in GONE:
        problem = f"the corpus {name} was whatever Python files were installed, and cannot be made again"
        raise UserError(f"{problem}; {name.removesuffix('@1')!r} has taken its place")
    return name


def stamp(name: str) -> str:
    """The name of a corpus and, where this may come to be another one's name, which one it is."""
    if readable(name) in LOCAL:
        return f"{name}@{VERSIONS[name]}-{short_digest(pinned.listed())}"
    if name in hub.HUB or name.partition(":")[0] in ("hub", "math"):
        return name
    return f"{name}@{short_digest(file_stats(files(name)))}"


def files(name: str) -> list[Path]:
    """The files of a path; a word that is neither a path nor a corpus is taken for a misspelt corpus."""
    if not os.path.exists(os.path.expanduser(name)) and not set(name) & set("/\\.*?[~"):
        raise UserError(f"{unknown('corpus', name, NAMES)} (a path is told by a / or a suffix)")
    return paths.files(name)


def file_stats(corpus_files: list[Path]) -> dict[str, str]:
    """What is known of files before they are read: their names and sizes, and their dates."""
    root = os.path.commonpath([path.parent for path in corpus_files])
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in corpus_files]
    return {
        "files": short_digest([[name, stat.st_size] for name, stat in stats]),
        "dates": short_digest([stat.st_mtime_ns for _, stat in stats]),
    }


def content_digest(corpus_files: list[Path]) -> str:
    """Short for all that the files hold; it reads them, a second a GB."""
    digests = []
    for path in corpus_files:
        with paths.reading(path), open(path, "rb") as file:
            digests.append(file_digest(file, blake2b).hexdigest())
    return short_digest(digests)


def short_digest(value: object) -> str:
    return blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()


def manifest_source(stream: Documents) -> dict:
    """The source of a stream, for a manifest that `same_source` will compare with another."""
    return stream.source | ({"content": content_digest(stream.files)} if stream.files else {})


def same_source(source: dict, stream: Documents) -> bool:
    """Whether a manifest's source is the stream's: files of another date may hold what they held, and are then read."""
    if {**source, "content": None} == {**stream.source, "content": None}:
        return True
    undated = {**source, "dates": stream.source.get("dates")}
    return undated == {**stream.source, "content": source.get("content")} == manifest_source(stream)
