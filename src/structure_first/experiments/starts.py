"""What the diagnostics' experiments share: what goes across from stage one, and where a diagnostic alone starts."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Body
from structure_first.runs.recipe import Phase, Recipe

# Everything goes across. Stage two's tokens are others, so their embeddings are new rows from stage one's distribution.
FULL = Transfer(embeddings="resample")
MEAN = Transfer(embeddings="mean")  # the paper's rule for the diagnostics
PERMUTED = Transfer(attention="permute", mlp="permute", norms="permute", positions="permute", embeddings="resample")
# GPT-2's 0.02 is for a width of 768 and more; at width 16 it is a twelfth of this, near which stage ones end.
WIDE = Body.width**-0.5


class Start(NamedTuple):
    """Where a diagnostic alone starts from, and how many times its own rate it then has."""

    init: float
    init_embedding: float
    tied: bool
    faster: float = 1

    def of(self, task: Phase, body: Body = Body()) -> tuple[Phase, Body]:
        """The diagnostic as it is trained from here, and a body as it is drawn."""
        begun = replace(task.at(lr=self.faster * task.stage.lr), tied=self.tied)
        return begun, replace(body, init=self.init, init_embedding=self.init_embedding)

    def recipe(self, task: Phase, body: Body = Body()) -> Recipe:
        """The diagnostic alone."""
        return Recipe(None, None, *self.of(task, body))


def starts(task: Phase, widths: Iterable[float], embeddings: Iterable[float], body: Body = Body()) -> dict[str, Recipe]:
    """A diagnostic alone, from fresh weights and embeddings of several widths, the head tied or not."""
    return {
        f"weights {weights:.3g} / embeddings {embedding:.3g}{' / tied' * tied}": Start(weights, embedding, tied).recipe(
            task, body
        )
        for tied, weights, embedding in product((False, True), widths, embeddings)
    }
