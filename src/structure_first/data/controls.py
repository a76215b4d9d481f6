"""Controls: sources with the structure taken out."""

import torch

from structure_first.data.batch import Batch, Source
from structure_first.data.common import ascending, predicted_from


def random(count: int, generator: torch.Generator, *, length: int = 128, vocab: int = 100) -> Batch:
    """Tokens 0 .. vocab - 1, each equally likely at each position."""
    return predicted_from(1, torch.randint(vocab, (count, length), generator=generator, device=generator.device))


def shuffled(source: Source) -> Source:
    """The same tokens in each sequence, in random order.

    All tokens up to the last that bears loss change places, separators too (Jiang et al. 2026 shuffle the tokens inside
    each procedural sequence). Pads stay behind them and the loss mask stays as it was, so that training meets the same
    tokens, the same number of predictions and no pad to predict.
    """

    def draw(count: int, generator: torch.Generator) -> Batch:
        tokens, loss_mask = source.draw(count, generator)
        position = torch.arange(source.length, device=tokens.device)
        last = (position * loss_mask).amax(1, keepdim=True)
        bits = max(16, (source.length - 1).bit_length())  # that hold a place; of 62 the rest are its rank
        rank = torch.randint(1 << 62 - bits, tokens.shape, generator=generator, device=tokens.device)
        rank = rank.maximum((position > last).long() << 62 - bits)  # behind the last, above all ranks and so in order
        order = ascending(rank << bits | position) & (1 << bits) - 1
        return Batch(tokens.gather(1, order), loss_mask)

    return source.changed(
        shuffled,
        name=f"shuffled:{source.name}",
        teaches=f"which tokens occur in {source.name}, and nothing of their order",
        draw=draw,
        determined=None,
    )
