"""How a stage is computed changes nothing but rounding."""

from dataclasses import replace
from functools import partial

import jaxtyping
import pytest
import torch

from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.compute import Compute
from structure_first.training.loop import Run, fit
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

SET = source("set", length=6, vocab=9)  # pads: sequences bear loss in different numbers of places
STAGE = Stage(steps=20, batch=12, warmup=5, held_out=30, evaluate_every=10)


def trained(compute: Compute, **shape) -> tuple[Transformer, list[dict]]:
    model = Transformer(Shape(SET.vocab, SET.length, **shape), (0, 1))
    return model, fit(model, SET, STAGE, compute=compute)


@pytest.mark.parametrize(
    ("compute", "shape"),
    [
        (Compute(micro_batch=5), dict(tied=True)),
        (Compute(recompute=True), {}),
        (Compute(compile=True), dict(heads=1)),
        (Compute(compile=True, recompute=True, micro_batch=5), dict(heads=1)),
    ],
    ids=["micro-batches", "recomputed", "compiled", "all"],
)
def test_the_weights_are_the_same_up_to_rounding(compute, shape, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # the C++ compiler takes minutes
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the check of shapes cannot be compiled
    model, rows = trained(compute, **shape)
    expected, others = trained(Compute(), **shape)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
    for row, other in zip(rows, others, strict=True):
        assert row["value"] == pytest.approx(other["value"], abs=1e-5)


@pytest.mark.parametrize("width", [16, 64])  # the narrow attention, and torch's own
def test_bfloat16_keeps_whole_weights_and_loses_little(width):
    model, rows = trained(Compute(precision="bfloat16"), width=width)
    _, others = trained(Compute(), width=width)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert [row["value"] for row in rows] != [other["value"] for other in others]
    for row, other in zip(rows, others, strict=True):
        assert row["value"] == pytest.approx(other["value"], abs=0.03)


def test_recomputing_keeps_less_for_the_backward_pass():
    def kept(compute: Compute) -> int:
        model = Transformer(Shape(SET.vocab, SET.length, layers=4))
        run, sizes = Run(model, SET, STAGE, "stage", compute), {}

        def keep(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run.forward(Stream(SET, 12, [0], "stage")(0).tokens[..., :-1])
        return sum(sizes.values())

    assert kept(Compute(recompute=True)) < kept(Compute()) / 2


def test_recomputing_drops_what_the_forward_pass_dropped():
    for dropout in (0.0, 0.3):
        models = [trained(Compute(recompute=recompute), dropout=dropout)[0] for recompute in (False, True)]
        for a, b in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_run_goes_on_under_another_compute(tmp_path):
    path, whole = tmp_path / "run.safetensors", trained(Compute())[0]

    class Stop(Exception):
        pass

    def watch(step, model):
        if step == 10:
            raise Stop

    shape = Shape(SET.vocab, SET.length)
    with pytest.raises(Stop):
        model = Transformer(shape, (0, 1))
        fit(model, SET, STAGE, checkpoint=path, checkpoint_seconds=0, watch=watch, compute=Compute(recompute=True))
    assert not any("forward" in vars(block) for block in model.blocks), "the caller's model computes as it did"
    again = Transformer(shape, (0, 1))
    fit(again, SET, STAGE, checkpoint=path, compute=Compute(micro_batch=5))
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_wrong_settings_say_why():
    with pytest.raises(UserError, match="unknown precision 'bfloat'; did you mean 'bfloat16'"):
        Compute(precision="bfloat")
    with pytest.raises(UserError, match="micro_batch must be 1 or more"):
        replace(Compute(), micro_batch=0)
