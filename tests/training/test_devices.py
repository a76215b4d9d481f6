"""Products are float32, whoever multiplies; what is below its normal numbers is zero while a stage trains."""

from contextlib import nullcontext

import pytest
import torch

from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.training import devices
from structure_first.training.loop import fit
from structure_first.training.stage import Stage


@pytest.fixture
def matmul():
    yield torch.backends.mkldnn.matmul
    devices.choose_products(0)


@pytest.mark.parametrize("multiplications", [0, devices.LARGE])
def test_products_stay_float32(matmul, multiplications):
    devices.choose_products(multiplications)
    a, b = torch.rand(2, 3, 200, 300), torch.rand(2, 3, 300, 100)
    for one, other in ((a[0, 0], b[0, 0]), (a[0], b[0])):
        torch.testing.assert_close(one @ other, (one.double() @ other.double()).float(), rtol=1e-5, atol=0)


def test_only_large_products_and_only_exact_ones_change_hands(matmul, monkeypatch):
    devices.choose_products(devices.LARGE)
    assert (matmul.fp32_precision == "bf16") == devices.onednn_is_exact()
    devices.choose_products(devices.LARGE - 1)
    assert matmul.fp32_precision == "none"
    monkeypatch.setattr(devices, "onednn_is_exact", lambda: False)
    devices.choose_products(devices.LARGE)
    assert matmul.fp32_precision == "none"


def too_small_is_zero() -> bool:
    return (torch.full((8,), 1e-39) * 2).sum() == 0


@pytest.fixture
def kept_small():
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("before", [False, True])
def test_what_is_too_small_is_zero_while_a_stage_trains_and_then_as_it_was(kept_small, before):
    torch.set_flush_denormal(before)
    copy, seen = source("identity", length=4, vocab=8), []
    model = Transformer(Shape(copy.vocab, copy.length), (0,))
    fit(model, copy, Stage(steps=2, batch=4, held_out=4, warmup=1), watch=lambda *_: seen.append(too_small_is_zero()))
    assert seen and all(seen) and too_small_is_zero() == before
    with pytest.raises(ZeroDivisionError), devices.flushed():
        raise ZeroDivisionError
    assert too_small_is_zero() == before


def test_a_sharp_model_learns_the_same_weights_as_with_all_that_is_too_small(kept_small):
    """Scores of hundreds of bits, so that softmaxes and gradients hold numbers below the normal ones."""
    copy = source("identity", length=8, vocab=8)
    stage = Stage(steps=20, batch=16, held_out=4, warmup=1, evaluate_every=20)

    def trained(flushing: bool) -> list[torch.Tensor]:
        model = Transformer(Shape(copy.vocab, copy.length, init=2.0), (0,))
        with pytest.MonkeyPatch.context() as patch:
            if not flushing:
                patch.setattr("structure_first.training.loop.flushed", nullcontext)
            fit(model, copy, stage)
        return [each.detach() for each in model.parameters()]

    for a, b in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)  # mostly bit for bit
