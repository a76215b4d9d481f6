"""Packed corpora as sources: windows of memory-mapped shards. This file needs only numpy and torch."""

import json
from dataclasses import replace
from functools import partial
from hashlib import blake2b, file_digest
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from structure_first.data.batch import Batch, Source
from structure_first.data.common import predicted_from
from structure_first.data.retrieval import in_sight
from structure_first.errors import UserError, check_known
from structure_first.schema import COUNT, validated

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "held_out")
HASHES = "hashes"  # beside the splits of a shard: the hash of each of its documents
FILE = {"tokens": COUNT, "documents": COUNT, "digest": str, ...: object}
SCHEMA = {  # what is read of a manifest
    "format": FORMAT,
    "source": {"corpus": str, ...: object},
    "tokeniser": {"name": str, "vocab": range(1, 1 << 32), "separator": COUNT, "digest": str, ...: object},
    "held_out": float,
    "dtype": ("uint8", "uint16", "uint32"),
    "finished": bool,
    "ended": bool,
    "state": {"position": COUNT, "stream?": dict, ...: object},
    "tokens": {"train": COUNT, "held_out": COUNT},
    "documents": {"train": COUNT, "held_out": COUNT, "duplicates": COUNT},
    "shards": [{"train?": FILE, "held_out?": FILE, HASHES: {"digest": str, ...: object}, ...: object}],
    ...: object,
}


def read_manifest(folder: Path) -> dict:
    """What `packing.pack` wrote last."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        written_format = validated(manifest, {"format": object, ...: object})["format"]
        if written_format == FORMAT:
            validated(manifest, SCHEMA)
            for name, split in product(("tokens", "documents"), SPLITS):
                if manifest[name][split] != sum(shard[split][name] for shard in manifest["shards"] if split in shard):
                    raise ValueError(f"{name}.{split} is not the sum of the shards'")
    except FileNotFoundError:
        raise UserError(f"there is no packed corpus in {folder}; make one with structure-first pack") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}); restore it, or pack into another folder") from None
    if written_format != FORMAT:
        raise UserError(f"{folder} is packed in format {written_format!r:.60}, this version reads {FORMAT}; pack again")
    return manifest


def shard_path(folder: Path, kind: str, number: int) -> Path:
    return Path(folder) / f"{kind}-{number:05}.npy"


def digest(path: Path) -> str:
    """The digest of a file; raises `UserError` where there is none."""
    try:
        with open(path, "rb") as file:
            return file_digest(file, partial(blake2b, digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); restore it or pack again") from None


def check(folder: Path, manifest: dict, *kinds: str) -> None:
    """Raise `UserError` unless the shards are those that were packed."""
    for number, shard in enumerate(manifest["shards"]):
        for kind in kinds:
            path = shard_path(folder, kind, number)
            if kind in shard and digest(path) != shard[kind]["digest"]:
                raise UserError(f"shard {path} has changed since it was packed; restore it or pack again")


def threshold(held_out: float) -> np.uint64:
    """Documents whose hash lies below it are held out."""
    return np.uint64(int(held_out * 2.0**64))


class Packed:
    """One split of a packed corpus; `checked=False` spares the reading that its digests take, a second a GB."""

    def __init__(self, folder: Path, split: str = "train", checked: bool = True):
        check_known("split", split, SPLITS)
        self.folder, self.split, self.manifest = Path(folder), split, read_manifest(folder)
        if not self.manifest["finished"]:
            raise UserError(f"{folder} is not packed to its end; give the same structure-first pack command again")
        if checked:
            check(self.folder, self.manifest, split)
        numbers = [number for number, shard in enumerate(self.manifest["shards"]) if split in shard]
        try:
            self.shards = [np.load(shard_path(folder, split, number), mmap_mode="r") for number in numbers]
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read the shards in {folder} ({error}); restore them or pack again") from None
        self.vocab = self.manifest["tokeniser"]["vocab"]

    def tokens(self) -> int:
        return sum(map(len, self.shards))

    def source(self, context: int) -> Source:
        """Windows of `context` + 1 tokens from anywhere in the split, every one as likely; all but the first bear loss.

        A window lies within one shard and may span documents.
        """
        length = context + 1
        windows = [sliding_window_view(shard, length) for shard in self.shards if len(shard) >= length]
        if context < 1 or not windows:
            longest = max(map(len, self.shards), default=0)
            problem = f"{self.split} of {self.folder} has no {length:,} tokens in a row, at most {longest:,}"
            raise UserError(f"{problem}; pack more of the corpus, raise --held-out, or take a shorter context")
        ends = np.cumsum([len(each) for each in windows])

        def draw(count: int, generator: torch.Generator) -> Batch:
            start = torch.randint(int(ends[-1]), (count,), generator=generator, device=generator.device).cpu().numpy()
            shard = np.searchsorted(ends, start, side="right")
            tokens = np.empty((count, length), np.int64)
            for number in np.unique(shard):
                rows = shard == number
                tokens[rows] = windows[number][start[rows] - ends[number] + len(windows[number])]
            return predicted_from(1, torch.from_numpy(tokens).to(generator.device))

        digests = [shard[self.split]["digest"] for shard in self.manifest["shards"] if self.split in shard]
        stamp = int(blake2b("".join(digests).encode(), digest_size=6).hexdigest(), 16)
        corpus = self.manifest["source"]["corpus"]
        return Source(
            name=f"packed:{corpus}",
            settings={"length": length, "tokens": self.tokens(), "digest": stamp},
            vocab=self.vocab,
            length=length,
            window=context,
            teaches=f"to go on a text of {corpus}",
            draw=draw,
            in_sight=in_sight,
            with_settings=lambda length: self.source(length - 1),
        )


def source(folder: Path, context: int, checked: bool = True) -> Source:
    """The training split as a source that is evaluated on the held-out one."""
    train, held_out = (Packed(folder, split, checked) for split in SPLITS)

    def of(length: int) -> Source:
        return replace(train.source(length - 1), held_out=held_out.source(length - 1), with_settings=of)

    return of(context + 1)
