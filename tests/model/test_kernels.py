"""Each kernel is, to rounding, the formula it stands for."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from einops import einsum
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from structure_first.model import kernels


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # of which only the first has kernels of our own
def test_what_a_replica_axis_costs_changes_no_number(replicas, dtype):
    x, table = drawn(replicas, 4, 5, 6), drawn(replicas, 11, 6, seed=1)
    tokens = torch.arange(replicas * 20).view(replicas, 4, 5) % 11
    weight, bias, scale = drawn(replicas, 6, 7, seed=2), drawn(replicas, 7, seed=3), drawn(replicas, 6, seed=4)
    centred = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = {
        kernels.lookup: ((table, tokens), torch.stack([one[at] for one, at in zip(table, tokens, strict=True)])),
        kernels.affine: ((x, weight, bias), einsum(x, weight, "r b t i, r i o -> r b t o") + bias[:, None, None]),
        kernels.norm: ((x, scale, scale), (centred + 1) * scale[:, None, None]),
        kernels.unembed: ((x, table), einsum(x, table, "r b t w, r v w -> r b t v")),
    }
    for kernel, (given_, there) in expected.items():
        found = kernel(*(each.to(dtype) if each.is_floating_point() else each for each in given_))
        torch.testing.assert_close(found, there.to(dtype), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [4, 64])  # the narrow attention, and torch's fused one
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("some", [False, True])
def test_attention_sees_nothing_later(width, dtype, some):
    at = torch.tensor([[[1, 7], [0, 3], [8, 8]], [[2, 5], [4, 1], [0, 0]]]) if some else None
    key, value, query = (drawn(6, 2, time, width, seed=time) for time in (9, 9, 2 if some else 9))
    place = torch.arange(9).expand(6, 9) if at is None else at.flatten(0, 1)
    future = place[:, None, :, None] < torch.arange(9)
    shares = (width**-0.5 * query @ key.mT).masked_fill(future, -torch.inf).softmax(-1)
    found = kernels.attention(*(each.to(dtype) for each in (query, key, value)), at)
    torch.testing.assert_close(found, (shares @ value).to(dtype), atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 8), st.integers(0, 99), st.sampled_from([0.3, 3.0, 40.0]))
def test_narrow_attention_is_attention(heads, keys, width, seed, scale):
    """Also for scores far beyond what an exponential holds."""
    random = torch.Generator().manual_seed(seed)
    queries, causal = (keys, True) if seed % 2 else (1 + seed % keys, False)
    query, key, value = (
        (scale * torch.randn(2, heads, width, time, generator=random)).requires_grad_()
        for time in (queries, keys, keys)
    )
    past = torch.ones(keys, keys, dtype=torch.bool).tril()
    if not causal:
        past = past[torch.randint(keys, (2, 1, queries), generator=random)]
    future = ~past
    wide = [x.detach().double().requires_grad_() for x in (query, key, value)]
    expected = (width**-0.5 * wide[0].mT @ wide[1]).masked_fill(future, -torch.inf).softmax(-1) @ wide[2].mT
    found = kernels.NarrowAttention.apply(query, key, value, None if causal else past).mT
    tolerance = dict(atol=1e-4 * scale**2, rtol=1e-3)
    torch.testing.assert_close(found, expected.float(), **tolerance)
    upstream = torch.randn(expected.shape, generator=random, dtype=torch.float64)
    grads = torch.autograd.grad(found, (query, key, value), upstream.float())
    for grad, truth in zip(grads, torch.autograd.grad(expected, wide, upstream), strict=True):
        torch.testing.assert_close(grad, truth.float(), atol=2e-4 * scale**2, rtol=1e-2)


@pytest.mark.parametrize("size", [1, 100, 2 * kernels.ELEMENTS + 1])
def test_the_gelu_is_torchs(size):
    x = torch.linspace(-12, 12, size).requires_grad_()
    y = x.detach().double().requires_grad_()
    found, expected = kernels.gelu(x), F.gelu(y, approximate="tanh")
    torch.testing.assert_close(found, expected.float(), atol=2e-6, rtol=1e-5)
    (grad,), (truth,) = torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), y)
    torch.testing.assert_close(grad, truth.float(), atol=5e-6, rtol=1e-5)


@pytest.mark.skipif(not find_spec("beartype"), reason="needs beartype to check annotations")
def test_shapes_in_signatures_are_held_to():
    x, weight, bias = drawn(2, 3, 4, 5), drawn(2, 5, 6), drawn(2, 6)
    kernels.affine(x, weight, bias)
    for wrong in ((x, drawn(2, 6, 6), bias), (x[0], weight, bias), (x.long(), weight, bias)):
        with pytest.raises(TypeCheckError):
            kernels.affine(*wrong)
