"""Products are float32, whoever multiplies."""

import pytest
import torch

from structure_first.training import devices


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
