"""Questions and answers out of a packed corpus: loss on the answers alone (Jiang et al. 2026, DeepMind-Math)."""

import torch
from jaxtyping import Int
from torch import Tensor

from structure_first.data.batch import Batch, Source
from structure_first.data.corpora.tokenisers import Characters
from structure_first.errors import UserError


def answers(source: Source) -> Source:
    """The same windows, but only what stands between a line's end and the next document bears loss.

    A window may begin within an answer; what comes before its first line's end bears no loss. Raises `UserError` for a
    source that is not a corpus in characters.
    """
    if not source.name.startswith("packed:") or source.vocab != Characters.vocab:
        raise UserError(f"answers: {source.name} is no corpus in characters; pack one with the tokeniser characters")

    def draw(count: int, generator: torch.Generator) -> Batch:
        tokens, loss_mask = source.draw(count, generator)
        return Batch(tokens, loss_mask & (numbered(tokens) > 0))

    return source.changed(
        answers, name=f"answers:{source.name}", teaches="to answer questions", draw=draw, in_sight=None, problems=whole
    )


def numbered(tokens: Int[Tensor, "*batch time"]) -> Int[Tensor, "*batch time"]:
    """Which answer of its sequence each token is of, the first is 1; 0: of none."""
    asked, begun = tokens == Characters.line, tokens == Characters.separator
    place = torch.arange(1, tokens.shape[-1] + 1, device=tokens.device)
    answering = (place * asked).cummax(-1).values > (place * begun).cummax(-1).values
    return asked.cumsum(-1) * (answering & ~asked)


def whole(tokens: Int[Tensor, "*batch time"]) -> Int[Tensor, "*batch time"]:
    """The same, without an answer that the sequence's end cuts."""
    ends = (tokens == Characters.separator).flip(-1).cumsum(-1).flip(-1)
    return numbered(tokens) * (ends > 0)
