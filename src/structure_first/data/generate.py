"""Data sets on disk: a source's sequences as Parquet or JSON lines, and a card beside them."""

import json
import os
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor
from tqdm import tqdm

import structure_first
from structure_first.data.batch import Batch, Source
from structure_first.data.registry import describe
from structure_first.errors import UserError, check_range
from structure_first.files import replacing, write_text
from structure_first.seeding import generator

CHUNK_TOKENS = 1 << 20  # drawn and written at once, whatever the size of the data set
MOST_TOKENS = 10**12

MADE = "| made by | structure-first "


def write(source: Source, tokens: int, out: Path, seed: int) -> Path:
    """Write whole sequences of at least `tokens` tokens in all to `out`, and a card beside it under the suffix .md.

    Columns are `tokens` and `loss_mask`, lists of integers. The same source and seed give the same sequences in the
    same order, however many are asked for. What an earlier call wrote is replaced, and nothing else; a failure leaves
    what was there before.
    """
    out = Path(out)
    if out.suffix not in WRITERS:
        raise UserError(f"cannot tell the format of {out}; its name must end in one of {', '.join(WRITERS)}")
    if not out.name.isprintable():
        raise UserError(f"the name {out.name!r} holds what cannot be shown; name another file")
    check_range("the number of tokens", tokens, 1, MOST_TOKENS)
    generator("cpu", seed)  # raises what is wrong with it before anything is written
    card = out.with_suffix(".md")
    for path in (out, card):
        if os.path.lexists(path) and not (path.is_file() and is_card_of(card, out.name)):
            raise UserError(f"{path} is there already and generate did not make it; remove it or name another file")
    sequences = ceil(tokens / source.length)
    with replacing(out) as data:
        WRITERS[out.suffix](data, batches(source, sequences, seed))
        write_text(card, describe_file(source, sequences, out.name, seed))
    return out


def is_card_of(card: Path, file: str) -> bool:
    """Whether what lies there is the card that was written beside a file of that name."""
    try:
        content = card.read_bytes()
    except OSError:
        return False
    names = file, quoted(file)  # earlier versions wrote it as it is
    return any(f"  data_files: {name}\n---\n".encode() in content for name in names) and MADE.encode() in content


def quoted(text: str) -> str:
    """A text as YAML, whatever signs it holds."""
    return json.dumps(text, ensure_ascii=False)


def batches(source: Source, sequences: int, seed: int) -> Iterator[Batch]:
    """That many sequences in chunks, every chunk seeded by its place, with a progress bar."""
    chunk = max(1, CHUNK_TOKENS // source.length)
    with tqdm(total=sequences * source.length, unit="token", unit_scale=True, desc=source.name, disable=None) as bar:
        for index, start in enumerate(range(0, sequences, chunk)):
            drawn = source.draw(chunk, generator("cpu", seed, "generate", index))
            batch = Batch(*(tensor[: sequences - start] for tensor in drawn))
            yield batch
            bar.update(batch.tokens.numel())


def lists(tensor: Tensor, kind: pa.DataType) -> pa.ListArray:
    """A row of a batch's tensor as a list each."""
    count, length = tensor.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * length)
    return pa.ListArray.from_arrays(offsets, pa.array(tensor.flatten().numpy()).cast(kind))


def write_parquet(path: Path, batches: Iterator[Batch]) -> None:
    schema = pa.schema({"tokens": pa.list_(pa.int32()), "loss_mask": pa.list_(pa.int8())})
    with pq.ParquetWriter(path, schema) as writer:
        for tokens, loss_mask in batches:
            writer.write_table(pa.table([lists(tokens, pa.int32()), lists(loss_mask.byte(), pa.int8())], schema=schema))


def write_json_lines(path: Path, batches: Iterator[Batch]) -> None:
    with open(path, "w") as file:
        for tokens, loss_mask in batches:
            tokens, loss_mask = (pc.binary_join(lists(each, pa.string()), ",") for each in (tokens, loss_mask.byte()))
            lines = pc.binary_join_element_wise('{"tokens":[', tokens, '],"loss_mask":[', loss_mask, "]}\n", "")
            file.writelines(lines.to_pylist())


WRITERS: dict[str, Callable[[Path, Iterator[Batch]], None]] = {
    ".parquet": write_parquet,
    ".jsonl": write_json_lines,
    ".json": write_json_lines,
}


def rule(source: Source) -> str:
    """A source's rule in a sentence; one that is not in the registry, such as a packed corpus, has its name alone."""
    try:
        return describe(source.name)
    except UserError:
        return f"Sequences of {source.name}."


def describe_file(source: Source, sequences: int, file: str, seed: int) -> str:
    """The card of a file, as Markdown with a header that the Hugging Face hub reads."""
    settings = "\n".join(f"| {setting} | {value} |" for setting, value in source.settings.items())
    return f"""---
pretty_name: {quoted(source.name)}
tags: [procedural, synthetic, pretraining]
configs:
- config_name: default
  data_files: {quoted(file)}
---
# {source.name}

{rule(source)}

| | |
|---|---|
{settings}
| sequences | {sequences:,} of {source.length:,} tokens |
| vocabulary | {source.vocab:,} (ids 0 to {source.vocab - 1:,}) |
| seed | {seed} |
{MADE}{structure_first.__version__} |

Columns: `tokens` holds a sequence's token ids; `loss_mask` is 1 where the token at that position is predicted with
loss.

The rules are those of Jiang et al. 2026, *Procedural Pretraining: Warming Up Language Models with Abstract Data*
(arXiv 2601.21725), and of Shinnick et al. 2025, *Transformers Pretrained on Procedural Data Contain Modular Structures
for Algorithmic Reasoning* (arXiv 2505.22308).
"""
