"""A causal language model of `transformers` as one replica, which the loop trains in place, on tokens of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from structure_first.errors import UserError
from structure_first.model.transformer import stream_at
from structure_first.seeding import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTEAD = "load one with AutoModelForCausalLM.from_pretrained or from_config"


@dataclass(frozen=True)
class Origin:
    """What a checkpoint must agree with: a digest of the model's configuration and of some of its first weights."""

    digest: str


class Causal:
    """`theirs` with an axis of one replica in front of every parameter, in the same memory: what trains it trains them.

    It computes as in evaluation, so nothing is dropped: procedural data never repeats itself.
    """

    blocks, stochastic = (), False

    def __init__(self, theirs: "PreTrainedModel", seed: int):
        self.theirs, self.seeds = theirs.eval(), (seed,)
        named = theirs.named_parameters()
        self.mine = {name: nn.Parameter(each.detach()[None]) for name, each in named if each.requires_grad}
        hasher = blake2b(theirs.config.to_json_string().encode(), digest_size=16)
        for each in self.mine.values():
            hasher.update(each.detach()[:, :1].cpu().numpy().tobytes())
        self.shape = Origin(hasher.hexdigest())

    def __call__(
        self, tokens: Int[Tensor, "1 batch time"], at: Int[Tensor, "1 batch n"] | None = None
    ) -> Float[Tensor, "1 batch n vocab"]:
        weights = {name: each.squeeze(0) for name, each in self.mine.items()}
        given = {"input_ids": tokens[0], "use_cache": False}
        return stream_at(functional_call(self.theirs, weights, kwargs=given).logits[None], at)

    def pick(self, replicas: Sequence[int]) -> "Causal":
        return Causal(deepcopy(self.theirs), self.seeds[0])

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.mine.values()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.mine.items()

    def train(self, mode: bool = True) -> "Causal":
        return self

    def eval(self) -> "Causal":
        return self

    def to(self, device: torch.device) -> "Causal":
        return self  # it stays where its owner put it


@contextmanager
def lent_vocabulary(theirs: "PreTrainedModel", vocab: int, seed: int) -> Iterator[Causal]:
    """Within, `theirs` knows `vocab` tokens, by embeddings and a head drawn from `seed`, tied where its own are.

    Afterwards its own are back: the same parameters, untouched. Raises `UserError` for what is no causal language model
    in float32 with embeddings and a head.
    """
    ends, training = vocabulary(theirs), theirs.training
    own = [(end, name, table) for end in ends for name, table in end.named_parameters(recurse=False)]
    lent = {table: nn.Parameter(drawn) for table, drawn in fresh(theirs, seed, vocab).items()}
    padding = getattr(ends[0], "padding_idx", None)
    try:
        ends[0].padding_idx = None  # a source's pad is a token like any other
        for end, name, table in own:
            setattr(end, name, lent[table])
        check_causal(theirs.eval(), vocab)
        yield Causal(theirs, seed)
    finally:
        for end, name, table in own:
            setattr(end, name, table)
        ends[0].padding_idx = padding
        theirs.train(training)


def vocabulary(theirs: "PreTrainedModel") -> list[Any]:
    """The embedding and the head of a model, whose tables have a row a token."""
    kind = type(theirs).__name__
    try:
        ends = [theirs.get_input_embeddings(), theirs.get_output_embeddings()]
        tables = [table for end in ends for table in end.parameters(recurse=False)]
        rows = ends[0].weight.shape[0]
    except (AttributeError, NotImplementedError):
        raise UserError(f"{kind} has no embeddings and head that can be set aside; {INSTEAD}") from None
    if len(tables) < 2 or any(len(table) != rows for table in tables):
        raise UserError(f"{kind} has embeddings or a head without a row for each token; {INSTEAD}")
    if others := {each.dtype for each in theirs.parameters()} - {torch.float32}:
        raise UserError(f"{kind} is in {others.pop()}, and trains in float32 alone; load it with dtype=torch.float32")
    return ends


@torch.no_grad()
def fresh(theirs: "PreTrainedModel", seed: int, rows: int | None = None) -> dict[Tensor, Tensor]:
    """For each table of the vocabulary one drawn anew, with so many `rows` or as many as it has; biases are 0."""
    std = getattr(theirs.config.get_text_config(), "initializer_range", 0.02)
    random = generator("cpu", seed, "init")
    fresh_tables: dict[Tensor, Tensor] = {}
    for table in dict.fromkeys(table for end in vocabulary(theirs) for table in end.parameters(recurse=False)):
        size = (rows or len(table), *table.shape[1:])
        drawn = std * torch.randn(size, generator=random) if table.ndim > 1 else torch.zeros(size)
        fresh_tables[table] = drawn.to(table)
    return fresh_tables


@torch.no_grad()
def check_causal(theirs: "PreTrainedModel", vocab: int) -> None:
    """Raise `UserError` unless the model says something of each token, and nothing that hangs on a later one."""
    tokens = torch.zeros(2, 4, dtype=torch.long, device=next(theirs.parameters()).device)
    tokens[1, -1] = 1
    logits = theirs(input_ids=tokens, use_cache=False).logits
    if logits.shape[-1] != vocab:
        raise UserError(f"{type(theirs).__name__} has a head that cannot be set aside; {INSTEAD}")
    if not torch.allclose(logits[0, :-1], logits[1, :-1], atol=1e-5):
        raise UserError(f"{type(theirs).__name__} sees later tokens, so it is no causal language model; {INSTEAD}")
