"""Dropout's own kernels: what is left out, how much larger the rest is, and the gradients."""

import pytest
import torch

from structure_first.model import kernels
from structure_first.model.transformer import Shape, Transformer

SHARE = 0.3


@pytest.fixture
def drawn(monkeypatch):
    """Every tensor of random numbers that the kernels draw."""
    found, noise = [], kernels.noise

    def recorded(shape):
        found.append(noise(shape))
        return found[-1]

    monkeypatch.setattr(kernels, "noise", recorded)
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_stays(share):
    torch.manual_seed(0)
    x = torch.ones(400, 500)
    y = kernels.drop(x, share)
    zero = (y == 0).float().mean().item()
    assert zero == pytest.approx(share, abs=0.005) and y.mean().item() == pytest.approx(1, abs=0.03)
    assert y.unique().numel() == 2
    assert torch.equal(kernels.drop(x, share) == 0, y == 0) is False, "drawn anew"


@pytest.mark.parametrize("times, at", [(9, None), (70, None), (40, [3, 20, 39])])
def test_attention_that_drops_weights_agrees_with_the_definition(drawn, times, at):
    batch, heads, d = 3, 2, 8
    queries = times if at is None else 1
    query = torch.randn(batch, heads, queries, d, dtype=torch.float32, requires_grad=True)
    key, value = (torch.randn(batch, heads, times, d, requires_grad=True) for _ in range(2))
    place = None if at is None else torch.tensor(at).reshape(1, batch, 1)
    mixed = kernels.attention(query, key, value, place, SHARE)
    grad = torch.randn_like(mixed)
    found = torch.autograd.grad(mixed, (query, key, value), grad)

    least, larger = kernels.dropping(SHARE)
    kept = torch.zeros(batch * heads, queries, times)
    whole = [(slice(None), times)]
    for (rows, seen), noise in zip(whole if at else kernels.tiles(times), drawn, strict=True):
        kept[:, rows, :seen] = (noise >= least).float() * larger
    stands = torch.arange(queries).expand(batch, -1) if at is None else place[0]
    future = torch.arange(times) > stands[:, None, :, None]
    weights = (query @ key.mT * d**-0.5).masked_fill(future, -torch.inf).softmax(-1)
    expected = (weights * kept.view(batch, heads, queries, times)) @ value
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    wanted = torch.autograd.grad(expected, (query, key, value), grad)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_nothing_is_dropped_where_nothing_is_learnt():
    model, tokens = Transformer(Shape(11, 8, dropout=0.5)), torch.arange(8).reshape(1, 1, 8)
    trained = model(tokens)
    assert not torch.equal(trained, model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens)) and not torch.equal(trained, model(tokens))
