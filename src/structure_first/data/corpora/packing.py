"""A corpus packed once: tokens in memory-mapped shards, a manifest, and nothing lost when it is stopped."""

import json
import os
import re
from collections.abc import Generator
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt64
from tqdm import tqdm

import structure_first
from structure_first.data.corpora import packed, tokenisers
from structure_first.data.corpora.documents import Documents, documents, manifest_source, same_source
from structure_first.data.corpora.packed import HASHES, MANIFEST, SPLITS, digest, read_manifest, shard_path, threshold
from structure_first.data.corpora.tokenisers import Tokeniser
from structure_first.errors import UserError
from structure_first.files import collect, locked, replacing, write_text

BATCH = 1 << 18  # characters tokenised at once
MOST_BYTES = 4  # that a character takes, so that only the document that reaches a limit goes beyond it
SHARD_TOKENS = 1 << 24
SLOW_SHARD_TOKENS = 1 << 20  # of a corpus that is generated, at some ten thousand tokens a second
MOST_TOKENS = 10**13
OWN = (MANIFEST, tokenisers.FILE, tokenisers.SETTINGS)  # beside the shards
OURS = "|".join((*map(re.escape, OWN), r"\w+-\d{5,}\.npy"))  # the files of a folder


def pack(
    corpus: str | Path,
    tokeniser: str,
    folder: str | Path,
    *,
    text_column: str | None = None,
    seed: int = 0,
    held_out: float = 0.01,
    limit_tokens: int | None = None,
    shard_tokens: int | None = None,
) -> dict:
    """Pack a corpus into `folder` and return the manifest.

    A document that is an exact copy of an earlier one is dropped. The hash of what it says decides whether it is held
    out, so that it is on the same side in whatever is packed. Each begins with the tokeniser's separator and lies in
    one shard. Packing ends with the corpus, or with the document that reaches `limit_tokens`. Memory grows by some 70
    bytes a document. What is stopped goes on behind its last finished shard when it is called again in the same way,
    and the result is the same; a higher limit adds to what is there, in tokens of the tokeniser that is there, though
    the first limit bounds what a BPE learns from (`tokenisers.learnt`).
    """
    if not 0 <= held_out < 1:
        raise UserError(f"the share held out must be at least 0 and below 1, not {held_out}")
    for name, value in (("limit", limit_tokens), ("size of a shard", shard_tokens)):
        if value is not None and not 1 <= value <= MOST_TOKENS:
            raise UserError(f"the {name} must be from 1 to {MOST_TOKENS:,} tokens, not {value:,}")
    if not str(folder):
        raise UserError("the folder of shards has no name; name one that is new or empty")
    folder = Path(folder)
    read = partial(documents, corpus, text_column, seed)
    with locked(folder):
        collect(folder, OURS)
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
        if manifest is None and any(folder.iterdir()):
            raise UserError(f"{folder} holds files but no packed corpus; name a folder that is new or empty")
        if manifest and not manifest["shards"]:  # there is nothing to go on with
            clear(folder)
            manifest = None
        stream = read(manifest and manifest["state"])
        if stream.endless and limit_tokens is None:
            raise UserError(f"the corpus {corpus} has no end; say how much of it with --limit-tokens")
        if manifest is None:

            def training() -> Generator[str, None, None]:
                for text in read():
                    if not hashed([text])[0] < threshold(held_out):
                        yield text

            with closing(training()) as texts:
                used_tokeniser = tokenisers.tokeniser(tokeniser, lambda: texts, limit_tokens)
            manifest = new_manifest(stream, used_tokeniser, held_out)
            write_manifest(folder, manifest)  # first, for it says that the folder is ours
            tokenisers.save(used_tokeniser, folder)
        elif problem := difference(manifest, stream, tokeniser, held_out):
            raise UserError(f"{folder} holds shards of another {problem}; name another folder or remove this one")
        else:
            used_tokeniser = saved_tokeniser(folder, manifest)
            packed.check(folder, manifest, *SPLITS, HASHES)
        size = shard_tokens or (SLOW_SHARD_TOKENS if stream.endless else SHARD_TOKENS)
        try:
            add_shards(folder, manifest, stream, used_tokeniser, size, limit_tokens or MOST_TOKENS)
            if not manifest["shards"]:
                raise UserError(f"the corpus {corpus} holds no document; name another")
        except UserError:
            if not manifest["shards"]:
                clear(folder)
            raise
    return manifest


def clear(folder: Path) -> None:
    """Remove what a call leaves that ends within its first shard."""
    begun = (shard_path(folder, kind, 0).name for kind in (*SPLITS, HASHES))
    for name in (*begun, *reversed(OWN)):  # the manifest last, for it says that the folder is ours
        (folder / name).unlink(missing_ok=True)


def add_shards(
    folder: Path, manifest: dict, stream: Documents, tokeniser: Tokeniser, shard_tokens: int, limit: int
) -> None:
    """Write shard after shard, each with the manifest that counts it."""
    done, total = sum(manifest["tokens"].values()), None if limit == MOST_TOKENS else limit
    known, manifest["finished"] = manifest["finished"], manifest["ended"] or done >= limit
    if manifest["finished"]:
        return None if known else write_manifest(folder, manifest)
    seen: set[int] = set()
    for number in range(len(manifest["shards"])):
        seen.update(np.load(shard_path(folder, HASHES, number)).tolist())
    name = f"pack {manifest['source']['corpus']}"
    with tqdm(total=total, initial=done, unit="token", unit_scale=True, desc=name, disable=None) as bar:
        while not manifest["finished"]:
            tokens_by_split: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
            fresh_hashes, tokens, wanted = [], 0, min(shard_tokens, limit - done)
            while tokens < wanted:
                most = min(BATCH, 1 + (wanted - tokens) // MOST_BYTES)
                if not (texts := list(tokenisers.first_texts(stream, most, each=1))):
                    break
                hashes = hashed(texts)
                fresh, held = unseen(hashes, seen), hashes < threshold(manifest["held_out"])
                for split, chosen in zip(SPLITS, (fresh & ~held, fresh & held), strict=True):
                    encoded = joined(tokeniser, [texts[i] for i in np.flatnonzero(chosen)], manifest["dtype"])
                    tokens_by_split[split].append(encoded)
                    tokens += len(encoded)
                    bar.update(len(encoded))
                fresh_hashes.append(hashes[fresh])
                manifest["documents"]["duplicates"] += len(texts) - int(fresh.sum())
            if tokens:
                add_shard(folder, manifest, tokens_by_split, np.concatenate(fresh_hashes))
            done, ended = done + tokens, tokens < wanted
            manifest |= {"state": stream.state(), "ended": ended, "finished": ended or done >= limit}
            write_manifest(folder, manifest)


def add_shard(
    folder: Path, manifest: dict, tokens_by_split: dict[str, list[np.ndarray]], hashes: UInt64[np.ndarray, " n"]
) -> None:
    """Write the files of one shard and count them in the manifest; a split without tokens has no file."""
    number, shard = len(manifest["shards"]), {}
    held = int((hashes < threshold(manifest["held_out"])).sum())
    for kind, array in ((split, np.concatenate(tokens_by_split[split])) for split in SPLITS):
        if len(array):
            count = held if kind == "held_out" else len(hashes) - held
            written = write_array(shard_path(folder, kind, number), array)
            shard[kind] = {"tokens": len(array), "documents": count, "digest": written}
            manifest["tokens"][kind] += len(array)
            manifest["documents"][kind] += count
    shard[HASHES] = {"digest": write_array(shard_path(folder, HASHES, number), hashes)}
    manifest["shards"].append(shard)


def write_array(path: Path, array: np.ndarray) -> str:
    """Write a .npy file whole and return its digest."""
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)  # unlike numpy's own writer this says why a full disk is full
            file.flush()
            os.fsync(file.fileno())
        return digest(temporary)


def write_manifest(folder: Path, manifest: dict) -> None:
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def new_manifest(stream: Documents, tokeniser: Tokeniser, held_out: float) -> dict:
    """The manifest of a folder without shards."""
    properties = {name: getattr(tokeniser, name) for name in ("name", "vocab", "separator")}
    return {
        "format": packed.FORMAT,
        "code": structure_first.__version__,
        "source": manifest_source(stream),
        "tokeniser": properties | {"digest": tokenisers.digest(tokeniser)},
        "held_out": held_out,
        "dtype": np.min_scalar_type(tokeniser.vocab - 1).name,
        "finished": False,
        "ended": False,  # whether the corpus ended, rather than the limit was reached
        "state": stream.state(),
        "tokens": dict.fromkeys(SPLITS, 0),
        "documents": dict.fromkeys((*SPLITS, "duplicates"), 0),
        "shards": [],
    }


def difference(manifest: dict, stream: Documents, tokeniser: str, held_out: float) -> str | None:
    """In what a folder was begun otherwise than is wanted now."""

    def without_files(source: dict) -> dict:
        return {name: value for name, value in source.items() if name not in ("files", "dates", "content")}

    for name, one, other in (
        ("corpus", without_files(manifest["source"]), without_files(stream.source)),
        ("tokeniser", manifest["tokeniser"]["name"], tokeniser),
        ("held-out share", manifest["held_out"], held_out),
    ):
        if one != other:
            return f"{name} ({one}, not {other})"
    return None if same_source(manifest["source"], stream) else "corpus (its files have changed)"


def saved_tokeniser(folder: Path, manifest: dict) -> Tokeniser:
    """The tokeniser that made the shards in a folder."""
    path, recorded = folder / tokenisers.FILE, manifest["tokeniser"]
    if digest(path) != recorded["digest"]:
        raise UserError(f"{path} is not what made the shards beside it; restore it or pack into another folder")
    return tokenisers.saved(path, recorded["name"])


def joined(tokeniser: Tokeniser, texts: list[str], dtype: str) -> Integer[np.ndarray, " token"]:
    """The tokens of the texts, each behind a separator."""
    tokens, lengths = tokeniser.encode(texts)
    return np.insert(tokens.astype(dtype), np.cumsum(lengths) - lengths, tokeniser.separator)


def hashed(texts: list[str]) -> UInt64[np.ndarray, " text"]:
    """A number for each text. A million documents hold two different ones of the same number once in 37 million."""
    return np.frombuffer(b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts), "<u8")


def unseen(hashes: UInt64[np.ndarray, " n"], seen: set[int]) -> Bool[np.ndarray, " n"]:
    """Which hashes are met for the first time; `seen` holds them all then."""
    is_new = np.zeros(len(hashes), bool)
    for index, value in enumerate(hashes.tolist()):
        is_new[index] = value not in seen
        seen.add(value)
    return is_new
