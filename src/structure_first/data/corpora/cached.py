"""Corpora that are packed when they are first asked for, and kept for the next time."""

import os
from functools import cache
from pathlib import Path

from structure_first.data.batch import Source
from structure_first.data.corpora import packed

HELD_OUT = 0.05  # of the documents: at 4 M tokens about 200,000 to measure a loss on


def cache_folder() -> Path:
    """Where packed corpora are kept: $STRUCTURE_FIRST_CORPORA, or a folder of the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "structure-first", "corpora")
    return Path(os.environ.get("STRUCTURE_FIRST_CORPORA") or cache).expanduser()


def corpus_folder(name: str, tokeniser: str, tokens: int) -> Path:
    """The folder of a packed corpus: another version of it has another."""
    from structure_first.data.corpora.documents import stamp

    return cache_folder() / f"{stamp(name)}-{tokeniser}-{tokens}".replace("/", "_").replace(":", "-")


def corpus(name: str, tokeniser: str, context: int, tokens: int) -> Source:
    """Windows of `context` + 1 tokens from the first `tokens` of a corpus, evaluated on its held-out documents.

    `name` and `tokeniser` are what `structure-first pack` takes. What is not there yet is packed first.
    """
    folder = corpus_folder(name, tokeniser, tokens)
    if not (folder / packed.MANIFEST).exists() or not packed.read_manifest(folder)["finished"]:
        from structure_first.data.corpora.packing import pack

        pack(name, tokeniser, folder, held_out=HELD_OUT, limit_tokens=tokens)
    return opened(folder, context)


@cache
def opened(folder: Path, context: int) -> Source:
    """A packed corpus, whose digests are checked once a process."""
    return packed.source(folder, context)
