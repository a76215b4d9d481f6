"""The loop trains whatever has what `Model` lists, and asks for no more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from structure_first.data.batch import Batch, Source
from structure_first.errors import UserError
from structure_first.training.compute import Compute
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

VOCAB = 11


@dataclass(frozen=True)
class Size:
    vocab: int


class Bigrams:
    """Each token's logits for the next one, a table a replica: no transformer, not even a module."""

    blocks, stochastic = (), False

    def __init__(self, seeds: Sequence[int], vocab: int = VOCAB):
        self.seeds, self.shape = tuple(seeds), Size(vocab)
        random = (torch.Generator().manual_seed(seed) for seed in self.seeds)
        self.table = nn.Parameter(torch.stack([torch.randn(vocab, vocab, generator=each) for each in random]))

    def __call__(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        tokens = tokens if at is None else tokens.gather(-1, at)
        return self.table[torch.arange(len(self.seeds))[:, None, None], tokens]

    def pick(self, replicas: Sequence[int]) -> "Bigrams":
        part = Bigrams([self.seeds[replica] for replica in replicas])
        part.table = nn.Parameter(self.table.detach()[replicas].clone())
        return part

    def parameters(self):
        yield self.table

    def named_parameters(self):
        yield "table", self.table

    def train(self, mode: bool = True) -> "Bigrams":
        return self

    def eval(self) -> "Bigrams":
        return self

    def to(self, device: torch.device) -> "Bigrams":
        return self


def counting(count: int, generator: torch.Generator) -> Batch:
    """Sequences that go on by 3, from a start that the last two tokens bear loss of."""
    start = torch.randint(VOCAB, (count, 1), generator=generator)
    tokens = (start + 3 * torch.arange(6)) % VOCAB
    return Batch(tokens, torch.arange(6).expand(count, 6) >= 4)


COUNTING = Source("counting", {}, VOCAB, 6, 2, "each token is the last one's, plus 3", counting)
STAGE = Stage(steps=400, batch=8, lr=0.05, warmup=0, schedule="constant", held_out=50, evaluate_every=2, mastery=1.0)


def test_a_model_of_another_kind_learns_masters_and_goes_on(tmp_path):
    whole, stopped = Bigrams((0, 1, 2)), Bigrams((0, 1, 2))
    rows = fit(whole, COUNTING, STAGE)
    end = {row["seed"]: row["value"] for row in rows if row["metric"] == "accuracy"}
    left = {row["seed"]: row["step"] for row in rows}
    assert end == {0: 1.0, 1: 1.0, 2: 1.0} and len(set(left.values())) > 1
    assert torch.equal(whole.table.argmax(-1), ((torch.arange(VOCAB) + 3) % VOCAB).expand(3, -1))

    class Stop(Exception):
        pass

    def watch(step, model):
        if step > min(left.values()):
            raise Stop

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        fit(stopped, COUNTING, STAGE, checkpoint=path, checkpoint_seconds=0, watch=watch)
    again = Bigrams((0, 1, 2))
    assert fit(again, COUNTING, STAGE, checkpoint=path) == rows
    assert torch.equal(again.table, whole.table)
    with pytest.raises(UserError, match="belongs to other settings"):
        fit(Bigrams((0, 1, 2), vocab=VOCAB + 1), COUNTING, STAGE, checkpoint=path)


def test_a_model_without_blocks_has_none_to_compile():
    rows = fit(Bigrams((0,)), COUNTING, replace(STAGE, steps=5), compute=Compute(compile=True, recompute=True))
    assert rows[-1]["step"] == 5


def test_batches_follow_from_the_random_key():
    def trained(**options) -> Tensor:
        model = Bigrams((0,))
        fit(model, COUNTING, replace(STAGE, steps=5), **options)
        return model.table

    assert torch.equal(trained(), trained(random_key="stage 2", label="shown"))
    assert not torch.equal(trained(), trained(random_key="stage 1"))
