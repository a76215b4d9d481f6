"""Dropout: replicas drop at once, what is dropped follows from the run alone, and a stopped run goes on with it."""

from dataclasses import replace

import pytest
import torch

from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

COPY = source("identity", length=4, vocab=8)
SHAPE = Shape(vocab=COPY.vocab, context=COPY.length, dropout=0.2)
STAGE = Stage(steps=30, batch=16, warmup=5, held_out=40, evaluate_every=10)


def trained(seeds=(0, 1, 1), stage: Stage = STAGE, **options) -> tuple[Transformer, list[dict]]:
    model = Transformer(SHAPE, seeds)
    return model, fit(model, COPY, stage, **options)


def same(a: Transformer, b: Transformer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_what_is_dropped_follows_from_the_run_and_from_nothing_else():
    torch.manual_seed(1)
    model, rows = trained()
    drawn_after = torch.rand(3)
    torch.manual_seed(2)
    again, others = trained()
    assert others == rows and same(again, model)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn_after), "the numbers of whoever calls are left alone"
    assert not same(trained(random_key="stage 1")[0], model)


def test_replicas_of_one_seed_drop_different_numbers():
    model, rows = trained()
    start = {row["replica"]: row["value"] for row in rows if row["step"] == 0 and row["metric"] == "loss"}
    assert start[1] == pytest.approx(start[2], abs=1e-6), "an evaluation drops nothing"
    plain = Transformer(replace(SHAPE, dropout=0.0), (0, 1, 1))
    fit(plain, COPY, STAGE)
    for each, pair in ((model, False), (plain, True)):
        weight = each.blocks[0].mlp.up.weight
        assert torch.allclose(weight[1], weight[2], atol=1e-4) == pair


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, stopped):
    stage = replace(STAGE, steps=400, lr=5e-3, schedule="constant", mastery=0.5)
    seeds, path = (0, 1, 2, 3), tmp_path / "run.safetensors"
    whole, rows = trained(seeds, stage)
    left = sorted({row["seed"]: row["step"] for row in rows}.values())
    assert left[0] < left[-1]
    stopped(left[0] + 1, path, Transformer(SHAPE, seeds), COPY, stage)
    torch.manual_seed(5)
    again, others = trained(seeds, stage, checkpoint=path)
    assert others == rows and same(again, whole)
