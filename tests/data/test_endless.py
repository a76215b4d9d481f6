"""A source as a data set without end: the same rows for the same seed, and none in two workers or processes."""

from itertools import islice

import pytest
import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from structure_first.data import endless as module
from structure_first.data.endless import endless
from structure_first.errors import UserError

SET = dict(length=8, vocab=50)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(module, "DRAWN", 340)  # 20 rows, so that a shard is come back to


def taken(rows, many: int) -> list[tuple[int, ...]]:
    return [tuple(row["input_ids"].tolist()) for row in islice(rows, many)]


def test_rows_are_the_sources_with_labels_where_it_bears_loss():
    rows = endless("set", **SET)
    assert isinstance(rows, IterableDataset)
    for row in islice(rows, 50):
        tokens, labels = row["input_ids"], row["labels"]
        assert tokens.dtype == labels.dtype == torch.int64 and tokens.shape == labels.shape == (17,)
        question, answer = tokens[:8].tolist(), tokens[9:].tolist()
        distinct = list(dict.fromkeys(question))
        assert answer == distinct + [51] * (8 - len(distinct)) and tokens[8] == 50
        shown = labels != -100
        assert torch.equal(labels[shown], tokens[shown]) and labels[shown].tolist()[: len(distinct)] == distinct
        assert not shown[:9].any()


def test_the_same_seed_gives_the_same_rows_and_another_others():
    one, again, other = (taken(endless("set", seed=seed, shards=2, **SET), 100) for seed in (1, 1, 2))
    assert one == again and not set(one) & set(other)
    assert len(set(one)) == 100


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [2, 3])
def test_no_row_comes_twice_from_workers(workers):
    """Three share four shards unevenly, and go on without end all the same."""
    loader = DataLoader(endless("set", shards=4, **SET), batch_size=16, num_workers=workers)
    found = [tuple(row) for batch in islice(loader, 30) for row in batch["input_ids"].tolist()]
    assert len(set(found)) == len(found) == 480


@pytest.mark.parametrize("world", [2, 3])
def test_no_row_comes_twice_in_processes(world):
    """Four shards are shared out between two; of three, each takes every third row."""
    rows = endless("set", shards=4, **SET)
    found = [taken(split_dataset_by_node(rows, rank, world), 100) for rank in range(world)]
    assert len(set().union(*found)) == 100 * world


def test_a_row_is_drawn_in_a_whole_batch(monkeypatch):
    drawn, real = [], module.registry.source

    def counted(*arguments, **settings):
        made = real(*arguments, **settings)
        return type(made)(**vars(made) | {"draw": lambda many, random: drawn.append(many) or made.draw(many, random)})

    monkeypatch.setattr(module.registry, "source", counted)
    assert len(taken(module.rows("set", SET, 0, [0, 1]), 60)) == 60 and drawn == [20, 20, 20]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("sett", {}, "unknown source 'sett'; did you mean 'set'"),
        ("set", {"lenght": 3}, "unknown setting of set 'lenght'"),
        ("set", {"seed": -1}, "a seed must be a whole number from 0"),
        ("set", {"shards": 0}, "shards must be from 1 to 65,536, not 0"),
    ],
)
def test_a_bad_call_is_one_line(name, options, line):
    with pytest.raises(UserError, match=line) as said:
        endless(name, **options)
    assert "\n" not in str(said.value)
