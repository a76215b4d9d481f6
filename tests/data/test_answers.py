"""Mathematics with loss on the answers alone: the mask and the whole answers against a plain reading, and a stage."""

import json
from math import isfinite

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from structure_first.data import answers
from structure_first.data.batch import Batch
from structure_first.data.corpora import packed
from structure_first.data.corpora.packing import pack
from structure_first.data.corpora.tokenisers import Characters
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.transformer import Shape, Transformer
from structure_first.seeding import generator
from structure_first.training import processes
from structure_first.training.loop import fit
from structure_first.training.predictions import evaluate
from structure_first.training.protocol import Model
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

LINE, BEGIN = Characters.line, Characters.separator


def read(tokens: list[int], cut: bool) -> list[int]:
    """Each token's answer, read from left to right; with `cut` also the one that the end cuts."""
    numbers, number, answering = [], 0, False
    for token in tokens:
        if token == LINE:
            number, answering = number + 1, True
        answering = answering and token != BEGIN
        numbers.append(number if answering and token != LINE else 0)
    if answering and not cut:
        start = max(place for place, token in enumerate(tokens) if token == LINE)
        numbers[start:] = [0] * (len(tokens) - start)
    return numbers


@given(st.lists(st.lists(st.sampled_from([1, 2, 3, LINE, BEGIN]), min_size=20, max_size=20), min_size=1, max_size=5))
def test_an_answer_stands_between_a_lines_end_and_the_next_document(rows):
    # A document has one line's end: of two in a row without a document's begin, the first would be no answer.
    rows = [[t for i, t in enumerate(row) if t != LINE or LINE not in row[last_begin(row, i) : i]] for row in rows]
    for row in rows:
        tokens = torch.tensor([row])
        assert answers.numbered(tokens).tolist() == [read(row, cut=True)]
        assert answers.whole(tokens).tolist() == [read(row, cut=False)]


def last_begin(row: list[int], before: int) -> int:
    return max((place for place in range(before) if row[place] == BEGIN), default=0)


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """A corpus of sums in characters, as windows with loss on their answers."""
    folder = tmp_path_factory.mktemp("sums")
    texts = [f"What is {a} + {b}?\n{a + b}" for a in range(30) for b in range(30)]
    (folder / "sums.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pack(folder / "sums.jsonl", "characters", folder / "out", held_out=0.1)
    return answers.answers(packed.source(folder / "out", 60))


def test_the_loss_reads_answers_of_the_corpus(sums):
    tokens, loss_mask = sums.draw(40, generator("cpu", 0))
    assert tokens.shape == (40, 61) and sums.held_out.problems is answers.whole
    digits = tokens[loss_mask]
    assert len(digits) and set((digits + 32).tolist()) <= set(map(ord, "0123456789"))
    assert loss_mask.any(1).all() and (tokens == LINE).sum() > 40
    assert sums.at(30).length == 30 and sums.at(30).name == sums.name


class Known(Model):
    """Says what it was told, whatever it reads."""

    def __init__(self, told: torch.Tensor):
        self.told = told

    def __call__(self, inputs, at):
        return 9.0 * F.one_hot(self.told[..., 1:], 99)

    def eval(self):
        return self

    def train(self):
        return self


def test_a_whole_answer_is_right_in_every_token(sums):
    """Of all answers known but one digit of one, all but that one are right; an answer that is cut counts nowhere."""
    tokens, loss_mask = sums.draw(20, generator("cpu", 0))
    number = answers.whole(tokens)
    asked = sum(len(set(row) - {0}) for row in number.tolist())
    row, place = (int(each[0]) for each in (number > 0).nonzero(as_tuple=True))
    told = tokens.clone()
    told[row, place] = LINE
    batch = Batch(tokens[None], loss_mask[None])
    found = evaluate(Known(told[None]), batch, sums)
    assert found["problems"].item() == pytest.approx((asked - 1) / asked)
    assert found["accuracy"].item() == pytest.approx(1 - 1 / int(loss_mask.sum()))


def test_a_sequence_that_fills_up_a_processs_share_asks_nothing(sums, monkeypatch):
    """Of three sequences the second of two processes has one and, to fill up, the last again, which bears no loss."""
    batch = Batch(*(tensor[None] for tensor in sums.draw(3, generator("cpu", 0))))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "world_size", lambda: 2)
        patch.setattr(processes, "rank", lambda: 1)
        share = processes.share(batch)
    assert share.tokens.shape[1] == 2 and not share.loss_mask[:, 1].any() and answers.whole(share.tokens[:, 1]).any()
    assert evaluate(Known(share.tokens), share, sums)["problems"].item() == 1


def test_a_batch_without_an_answer_teaches_nothing_and_does_no_harm(sums):
    short, stage = sums.at(6), Stage(steps=20, batch=1, warmup=0, held_out=100, evaluate_every=20)
    drawn = [Stream(short, 1, (0,), "stage 2")(step).loss_mask[..., 1:].any() for step in range(20)]
    assert not all(drawn) and any(drawn)
    rows = fit(Transformer(Shape(vocab=99, context=5), (0,)), short, stage)
    assert all(isfinite(row["value"]) for row in rows if row["metric"] == "loss")


def test_a_stage_on_answers_measures_them(sums):
    rows = fit(Transformer(Shape(vocab=99, context=60), (0, 1)), sums, Stage(steps=2, batch=4, warmup=0, held_out=30))
    assert {row["metric"] for row in rows} == {"loss", "accuracy", "problems"}


def test_what_is_no_corpus_in_characters_is_refused():
    with pytest.raises(UserError, match="dyck is no corpus in characters; pack one with the tokeniser characters"):
        answers.answers(source("dyck"))


def test_another_tokeniser_is_refused_before_anything_is_packed(monkeypatch):
    monkeypatch.setattr("structure_first.data.corpora.packing.pack", lambda *_, **__: pytest.fail("packed"))
    with pytest.raises(UserError, match="answers:code/bytes is no corpus in characters; write it as answers:code/char"):
        source("answers:code/bytes", context=8, tokens=10**9)
