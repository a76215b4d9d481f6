"""What every source yields, and what it says about itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from structure_first.errors import UserError


class Batch(NamedTuple):
    """Tokens, and where they bear loss: `loss_mask` is true where the token *at* that position is predicted."""

    tokens: Int[Tensor, "*batch time"]
    loss_mask: Bool[Tensor, "*batch time"]


@dataclass(frozen=True)
class Source:
    """A seeded stream of batches with fixed settings; `data.registry.source` makes one by name.

    `draw(count, generator)` returns `[count time]` on the generator's device. Where a sequence bears loss,
    it does so within `window` tokens: a model need not compute what no loss reads.
    """

    name: str
    settings: Mapping[str, int | float]
    vocab: int  #: token ids are 0 .. vocab - 1, separator and pad included
    length: int  #: tokens in a sequence, pads included
    window: int
    teaches: str  #: one line
    draw: Callable[[int, torch.Generator], Batch]
    #: which tokens follow from those before them; None: all
    determined: Callable[[Tensor], Tensor] | None = None
    #: which tokens can be looked up in those before; None: not asked
    in_sight: Callable[[Tensor], Tensor] | None = None
    #: which whole answer each token is of, from 1; 0: of none
    problems: Callable[[Tensor], Tensor] | None = None
    with_settings: Callable[..., "Source"] | None = None  #: the same source with some settings changed
    held_out: "Source | None" = None  #: what evaluation draws from; None: from this one, which never repeats itself

    @property
    def length_setting(self) -> int | None:
        """Its `length` setting, if it has one."""
        length = self.settings.get("length")
        return None if length is None else int(length)

    def at(self, length: int | None) -> "Source":
        """The same source with another `length` setting, for a curriculum; None leaves it as it is."""
        if length is None or length == self.length_setting:
            return self
        if self.with_settings is None:
            raise UserError(f"{self.name} comes in one length only; leave out the curriculum")
        return self.with_settings(length=length)

    def changed(self, change: Callable[["Source"], "Source"], **fields: Any) -> "Source":
        """This source with other fields; `change` makes the like of it at other settings, and of what is held out."""
        with_settings = self.with_settings
        return replace(
            self,
            **fields,
            with_settings=with_settings and (lambda **settings: change(with_settings(**settings))),
            held_out=self.held_out and change(self.held_out),
        )
