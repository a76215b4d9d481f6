"""Corpora that are packed when they are first asked for, and kept for the next time."""

import os
from functools import cache
from pathlib import Path

from structure_first.data.batch import Source
from structure_first.data.corpora import packed, tokenisers
from structure_first.versions import VERSIONS

HELD_OUT = 0.05  # of the documents: at 4 M tokens about 200,000 to measure a loss on

opened = cache(packed.source)  # a packed corpus, whose digests are checked once a process


def corpus_folder(name: str, tokeniser: str, tokens: int) -> Path:
    """The folder of a packed corpus, in $STRUCTURE_FIRST_CORPORA or else in the user's cache.

    Another version of the corpus or of its tokeniser's rule has another folder, and so has what another file holds that
    a tokeniser is read from.
    """
    from structure_first.data.corpora.documents import stamp

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "structure-first", "corpora")
    root = Path(os.environ.get("STRUCTURE_FIRST_CORPORA") or cache).expanduser()
    if (version := VERSIONS.get(tokeniser.partition(":")[0])) is not None:
        tokeniser += f"@{version}"
    elif file := tokenisers.local(tokeniser):
        tokeniser += f"@{packed.digest(file)[:16]}"
    return root / f"{stamp(name)}-{tokeniser}-{tokens}".replace("/", "_").replace(":", "-")


def corpus(name: str, tokeniser: str, context: int, tokens: int) -> Source:
    """Windows of `context` + 1 tokens from the first `tokens` of a corpus, evaluated on its held-out documents.

    `name` and `tokeniser` are what `structure-first pack` takes. What is not there yet is packed first. Raises
    `UserError` where another tokeniser's corpus is in its folder: the names a/b_c and a_b/c have one.
    """
    folder = corpus_folder(name, tokeniser, tokens)
    manifest = packed.read_manifest(folder) if (folder / packed.MANIFEST).exists() else None
    if not manifest or not manifest["finished"] or manifest["tokeniser"]["name"] != tokeniser:
        from structure_first.data.corpora.packing import pack

        pack(name, tokeniser, folder, held_out=HELD_OUT, limit_tokens=tokens)
    return opened(folder, context)
