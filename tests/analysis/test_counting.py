"""A bigram table knows what the last token tells, and no more."""

import pandas as pd
import pytest
import torch

from structure_first.analysis import counting
from structure_first.data.batch import Batch, Source

CHANCES = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])  # of the next token, by the last


def chain(count: int, generator: torch.Generator) -> Batch:
    tokens = [torch.randint(3, (count, 1), generator=generator)]
    for _ in range(39):
        tokens.append(torch.multinomial(CHANCES[tokens[-1][:, 0]], 1, generator=generator))
    tokens = torch.cat(tokens, 1)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


def far(count: int, generator: torch.Generator) -> Batch:
    """Each token is the one before the last: two in turn, which the last alone does not tell."""
    pair = torch.randint(3, (count, 2), generator=generator)
    tokens = pair.repeat(1, 20)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


def source(draw, vocab: int = 3) -> Source:
    return Source("chain", {}, vocab=vocab, length=40, window=39, teaches="", draw=draw)


def test_the_loss_is_the_entropy_of_a_chain():
    share = torch.linalg.matrix_power(CHANCES, 100)[0]  # of each token, in the long run
    entropy = -(share[:, None] * torch.special.xlogy(CHANCES, CHANCES)).sum().item()
    assert counting.last_token(source(chain)) == pytest.approx(entropy, abs=0.01)


def test_what_stands_further_back_is_not_seen():
    assert counting.last_token(source(far)) == pytest.approx(torch.tensor(3.0).log().item(), abs=0.02)


def test_a_token_that_never_came_is_not_impossible():
    assert counting.last_token(source(chain, vocab=300)) < 1


def test_it_is_told_when_each_front_is_below():
    found = pd.DataFrame(
        [
            {"width": 128, "label": label, "seed": seed, "step": step, "text": step / 4, "loss": loss}
            for label, last in (("random init", 0.9), ("set", 1.2))
            for seed in range(3)
            for step, loss in ((0, 5.0), (1, 1.3), (2, 1.0), (4, last))
        ]
    )
    assert counting.said(found, 1.0).endswith("a model is below that: random init 50%, set 50%.")
    assert counting.said(found[found["loss"] != 1.0], 1.0).endswith("random init 71%, set never.")
    both = pd.concat([found, found[found["loss"] != 1.0].assign(width=512)])
    assert counting.said(both, 1.0).endswith(
        "set at width 128 50%, random init at width 512 71%, set at width 512 never."
    )
