"""Every corpus by name, or by a path, as one stream of documents."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from structure_first.data.corpora import hub, mathematics, paths, pinned
from structure_first.errors import UserError, unknown

LOCAL = {
    "language": pinned.docstrings,
    "code": pinned.sources,
}
VERSIONS = {"code": 2, "language": 2}  # version 1 was every installed file; a row's key holds the version
NAMES = (*LOCAL, "math", *(f"math:{split}" for split in mathematics.SPLITS), *hub.HUB, "hub:OWNER/NAME")


@dataclass
class Documents(Iterator[str]):
    """The documents of a corpus in an order of their own, and where the stream is."""

    source: dict  # what they are; equal sources have equal documents
    texts: Iterator[str]
    position: int = 0  # how many have been read
    endless: bool = False
    at: Callable[[], dict] = field(default=dict)  # more to know where the stream is

    def __next__(self) -> str:
        text = next(self.texts)
        self.position += 1
        return text

    def state(self) -> dict:
        """Where to go on, in what JSON can hold; `documents` takes it."""
        return {"position": self.position} | self.at()


def documents(
    corpus: str | Path,
    text_column: str | None = None,
    seed: int = 0,
    state: dict | None = None,
    process: int = 0,
    processes: int = 1,
) -> Documents:
    """The documents of a corpus: a name, `hub:OWNER/NAME`, or the path of a file, a folder or a glob.

    `text_column` is the column of JSON lines, Parquet and the hub, `text` if it is left out. `seed` makes the questions
    of `math` and orders the files of `language` and `code`. `state` is what a stream of the same corpus gave out;
    of several `processes` each reads its own share. Until the first document is asked for, nothing is read but names.
    """
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    name, state = known(str(corpus)), state or {"position": 0}
    position = state["position"]
    share = {} if processes == 1 else {"process": process, "processes": processes}
    kind, _, rest = name.partition(":")
    if name in hub.HUB or kind == "hub":
        chosen = hub.HUB.get(name) or hub.Hub(rest)
        column = text_column or chosen.column
        stream = hub.Stream(chosen, column, state.get("stream"), process, processes)
        source = {"corpus": name, "hub": chosen.name, "config": chosen.config, "column": column} | share
        return Documents(source, iter(stream), position, at=lambda: {"stream": stream.state()})
    source = {"corpus": name} | share
    if kind == "math":
        texts = mathematics.questions(rest or "train", seed, position * processes + process)
        return Documents(source | {"seed": seed}, islice(texts, 0, None, processes), position, endless=True)
    if name in LOCAL:
        source |= {"seed": seed, "version": VERSIONS[name], "files": pinned.digest()}
        texts = LOCAL[name](pinned.files(seed))
    else:
        found, column = files(name), text_column or "text"
        source |= {"column": column, "files": digest({each.name: each for each in found})}
        texts = paths.texts(found, column)
    return Documents(source, islice(texts, position * processes + process, None, processes), position)


def known(name: str) -> str:
    """The name of a corpus that can be read; raises `UserError` for one that could be once."""
    if name in {f"{each}@1" for each in VERSIONS}:
        problem = f"the corpus {name} was whatever Python files were installed, and cannot be made again"
        raise UserError(f"{problem}; {name.removesuffix('@1')!r} has taken its place")
    return name


def stamp(name: str) -> str:
    """The name of a corpus and, where another release may have another corpus of that name, which one it is."""
    return f"{name}@{VERSIONS[name]}-{pinned.digest()}" if known(name) in VERSIONS else name


def files(name: str) -> list[Path]:
    """The files of a path; a word that is neither a path nor a corpus is taken for a misspelt corpus."""
    path = Path(name).expanduser()
    if not path.exists() and not set(name) & set("/\\.*?[~"):
        raise UserError(f"{unknown('corpus', name, NAMES)} (a path is told by a / or a suffix)")
    return paths.files(name)


def digest(found: dict[str, Path]) -> str:
    """Short for the names and sizes of files: a stream is not resumed in files that have changed."""
    sizes = [[name, path.stat().st_size] for name, path in found.items()]
    return blake2b(json.dumps(sizes).encode(), digest_size=8).hexdigest()
