"""Batches for every replica, the batch of a step depending on (seed, name of the stream, step) alone."""

from collections.abc import Sequence

import torch
from einops import rearrange

from structure_first.data.batch import Batch, Source
from structure_first.seeding import generator

BLOCK_TOKENS = 1 << 18  # steps are drawn together up to about this many tokens a replica: small draws waste the array


class Stream:
    """An endless `step -> Batch` of shape `[replica batch time]`; stateless, so a resumed run needs only its step.

    Replicas of different seeds never share data, and replica r sees the same data whichever others train beside it.
    """

    def __init__(self, source: Source, batch: int, seeds: Sequence[int], name: str, device: torch.device | str = "cpu"):
        self.source, self.batch, self.seeds, self.name, self.device = source, batch, tuple(seeds), name, device
        self._distinct = list(dict.fromkeys(self.seeds))  # each is drawn once, however many replicas have it
        self._replicas = [self._distinct.index(seed) for seed in self.seeds]
        self.block = max(1, min(64, BLOCK_TOKENS // (batch * source.length)))
        self._index = -1
        self._drawn: Batch | None = None

    def __call__(self, step: int) -> Batch:
        index, within = divmod(step, self.block)
        if self._drawn is None or index != self._index:
            by_seed = [
                self.source.draw(self.block * self.batch, generator(self.device, seed, self.name, index))
                for seed in self._distinct
            ]
            self._drawn = Batch(*(torch.stack(tensors) for tensors in zip(*by_seed, strict=True)))
            self._index = index
        pick = "seed (step batch) time -> step seed batch time"
        drawn = (rearrange(tensor, pick, step=self.block)[within] for tensor in self._drawn)
        return Batch(*(tensor if self._distinct == list(self.seeds) else tensor[self._replicas] for tensor in drawn))
