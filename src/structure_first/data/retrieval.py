"""Which tokens of a text could be looked up in what stood before them (after Yamaguchi et al. 2026)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SPAN = 3  # tokens


def in_sight(tokens: Int[Tensor, "*batch time"]) -> Bool[Tensor, "*batch time"]:
    """Whether the `SPAN` tokens before each one stood together earlier in its sequence, with what followed them."""
    seen = torch.zeros_like(tokens, dtype=torch.bool)
    if tokens.shape[-1] > SPAN:
        runs = tokens[..., :-1].unfold(-1, SPAN, 1)
        base = int(tokens.max()) + 1
        codes = (runs * base ** torch.arange(SPAN, device=tokens.device)).sum(-1)
        ordered, order = codes.sort(stable=True, dim=-1)
        again = torch.zeros_like(ordered, dtype=torch.bool)
        again[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
        seen[..., SPAN:] = again.scatter(-1, order, again)
    return seen
