"""Any source as an endless data set of `datasets`, for `Trainer`, TRL or a loop of one's own."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from structure_first.data import registry
from structure_first.errors import UserError
from structure_first.seeding import generator

if TYPE_CHECKING:
    from datasets import IterableDataset

SHARDS, MOST_SHARDS = 64, 1 << 16  # workers and processes share these out
DRAWN = 1 << 17  # tokens of a shard, at once
IGNORED = -100  # the label of what bears no loss, as `torch` and `transformers` have it


def endless(name: str, *, seed: int = 0, shards: int = SHARDS, **settings: int | float | None) -> "IterableDataset":
    """Rows of `input_ids` and `labels` of the source `registry.source(name, **settings)`: tensors of its length.

    `labels` are the tokens that are to be predicted, not shifted, and -100 elsewhere. The same seed gives the same
    rows. Each shard has rows of its own: the workers of a `DataLoader`, and the processes between which
    `datasets.distributed.split_dataset_by_node` or a `Trainer` splits, never see the same ones, as long as there are
    no more of them than `shards`. Raises `UserError` for a source, a seed or a number of shards that cannot be.
    """
    from datasets import IterableDataset

    registry.source(name, **settings)  # raises what is wrong with it here, not in a worker
    generator("cpu", seed)
    if not 1 <= shards <= MOST_SHARDS:
        raise UserError(f"shards must be from 1 to {MOST_SHARDS:,}, not {shards}; as many as workers, or more")
    given = {"name": name, "settings": settings, "seed": seed, "shards": list(range(shards))}
    return IterableDataset.from_generator(rows, gen_kwargs=given)


def rows(name: str, settings: dict, seed: int, shards: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """The rows of some shards in turn, drawn many at once. What a worker is sent are names, so it makes the source."""
    source = registry.source(name, **settings)
    many = max(1, DRAWN // source.length)
    for turn in count():
        for shard in shards:
            tokens, loss_mask = source.draw(many, generator("cpu", seed, "endless", shard, turn))
            for row, label in zip(tokens, torch.where(loss_mask, tokens, IGNORED), strict=True):
                yield {"input_ids": row, "labels": label}
