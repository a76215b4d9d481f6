"""The GPT-2 transformer, readable in one sitting, with a replica axis: many small models as one batched program.

Every parameter carries a leading `replica` axis, and so does every activation; one replica is the ordinary GPT-2
(Radford et al. 2019): learnt positions, norms before each sublayer, tanh-approximated GELU, a final norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from structure_first.errors import UserError
from structure_first.model import kernels
from structure_first.seeding import generator

At = Int[Tensor, "replica batch n"] | None


def stream_at(x: Float[Tensor, "replica batch time width"], at: At) -> Float[Tensor, "replica batch n width"]:
    """The stream `at` those positions; None is all of them."""
    if at is None:
        return x
    return x.gather(2, repeat(at, "replica batch n -> replica batch n width", width=x.shape[-1]))


MOST = dict(vocab=1 << 24, context=1 << 20, layers=1 << 10, heads=1 << 10, width=1 << 16)
WIDEST = 100  # deviation of fresh weights


@dataclass(frozen=True, kw_only=True)
class Body:
    """The size of a transformer, whatever it reads, and how wide its fresh weights are drawn; the defaults are the
    diagnostics' (Jiang et al. 2026, algorithmic tasks).
    """

    layers: int = 2
    heads: int = 4
    width: int = 16
    init: float = 0.02  #: standard deviation of fresh weights
    init_embedding: float | None = None  #: and of fresh embeddings and positions; None: the same


@dataclass(frozen=True)
class Shape(Body):
    """A transformer's body, and what it reads; raises `UserError` for a size that cannot be."""

    vocab: int
    context: int  #: the most tokens that it reads at once
    tied: bool = False  #: whether the head reads with the embeddings
    dropout: float = 0.0

    def __post_init__(self):
        if self.init_embedding is None:
            object.__setattr__(self, "init_embedding", self.init)
        for name, most in MOST.items():
            if not 1 <= (given := getattr(self, name)) <= most:
                raise UserError(f"a transformer's {name} must be 1 or more, at most {most:,}, not {given}")
        if self.width % self.heads:
            raise UserError(f"width {self.width} is not a multiple of {self.heads} heads; choose one that is")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        for name in ("init", "init_embedding"):
            if not 0 <= (given := getattr(self, name)) <= WIDEST:
                raise UserError(f"{name} must be a deviation from 0 to {WIDEST}, not {given}; GPT-2's is 0.02")


class Linear(nn.Module):
    """An affine map of the last axis, one per replica."""

    def __init__(self, replicas: int, width_in: int, width_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(replicas, width_in, width_out))
        self.bias = nn.Parameter(torch.zeros(replicas, width_out))

    def forward(self, x: Float[Tensor, "replica batch time i"]) -> Float[Tensor, "replica batch time o"]:
        return kernels.affine(x, self.weight, self.bias)


class Norm(nn.Module):
    """Layer normalisation with a scale and a shift per replica."""

    def __init__(self, replicas: int, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(replicas, width))
        self.shift = nn.Parameter(torch.zeros(replicas, width))

    def forward(self, x: Float[Tensor, "replica batch time width"]) -> Float[Tensor, "replica batch time width"]:
        return kernels.norm(x, self.scale, self.shift)


class Attention(nn.Module):
    """Causal self-attention; queries are taken `at` some positions or at all, keys and values at all."""

    def __init__(self, replicas: int, shape: Shape):
        super().__init__()
        self.heads, self.dropout = shape.heads, shape.dropout
        self.query = Linear(replicas, shape.width, shape.width)
        self.key_value = Linear(replicas, shape.width, 2 * shape.width)
        self.out = Linear(replicas, shape.width, shape.width)

    def project(self, x: Float[Tensor, "replica batch time width"], at: At = None) -> list[Tensor]:
        """Queries, keys and values, each `[(replica batch) head time d]`."""
        projected = [self.query(stream_at(x, at)), *self.key_value(x).chunk(2, dim=-1)]
        by_head = "replica batch time (head d) -> (replica batch) head time d"
        return [rearrange(part, by_head, head=self.heads) for part in projected]

    def forward(self, x: Float[Tensor, "replica batch time width"], at: At = None) -> Float[Tensor, "..."]:
        query, key, value = self.project(x, at)
        mixed = kernels.attention(query, key, value, at, self.dropout if self.training else 0.0)
        return self.out(rearrange(mixed, "(replica batch) head n d -> replica batch n (head d)", replica=len(x)))

    def weights(self, x: Float[Tensor, "replica batch time width"]) -> Float[Tensor, "replica batch head query key"]:
        """The attention pattern: how much each position takes from each one at or before it."""
        query, key, _ = self.project(x)
        future = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=x.device).triu(1)
        scores = einsum(query, key, "batch head query d, batch head key d -> batch head query key")
        pattern = (query.shape[-1] ** -0.5 * scores).masked_fill(future, -torch.inf).softmax(-1)
        return rearrange(pattern, "(replica batch) ... -> replica batch ...", replica=x.shape[0])


class Dropout(nn.Dropout):
    """Leaves out a share of what goes through, as long as it trains."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return kernels.drop(x, self.p) if self.p and self.training else x


class MLP(nn.Module):
    """Two affine maps around a GELU, four times as wide inside."""

    def __init__(self, replicas: int, shape: Shape):
        super().__init__()
        self.up = Linear(replicas, shape.width, 4 * shape.width)
        self.down = Linear(replicas, 4 * shape.width, shape.width)

    def forward(self, x: Float[Tensor, "replica batch time width"]) -> Float[Tensor, "replica batch time width"]:
        return self.down(kernels.gelu(self.up(x)))


class Block(nn.Module):
    """Attention, then an MLP, each added to the stream it reads."""

    def __init__(self, replicas: int, shape: Shape):
        super().__init__()
        self.attention_norm = Norm(replicas, shape.width)
        self.attention = Attention(replicas, shape)
        self.mlp_norm = Norm(replicas, shape.width)
        self.mlp = MLP(replicas, shape)
        self.drop = Dropout(shape.dropout)

    def forward(self, x: Float[Tensor, "replica batch time width"], at: At = None) -> Float[Tensor, "..."]:
        x = stream_at(x, at) + self.drop(self.attention(self.attention_norm(x), at))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class Transformer(nn.Module):
    """GPT-2 for `len(seeds)` replicas, replica r initialised from `seeds[r]` alone.

    Where not `fresh`, the weights are whatever stood in memory: for a caller who fills them all.
    """

    def __init__(self, shape: Shape, seeds: Sequence[int] = (0,), fresh: bool = True):
        super().__init__()
        replicas = len(seeds)
        self.shape, self.seeds = shape, tuple(seeds)
        self.embedding = nn.Parameter(torch.empty(replicas, shape.vocab, shape.width))
        self.position = nn.Parameter(torch.empty(replicas, shape.context, shape.width))
        self.drop = Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(replicas, shape) for _ in range(shape.layers))
        self.norm = Norm(replicas, shape.width)
        self.unembedding = None if shape.tied else nn.Parameter(torch.empty(replicas, shape.vocab, shape.width))
        if fresh:
            self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """GPT-2's initialisation: normal, narrower by sqrt(2 layers) where a sublayer writes to the stream."""
        for replica, seed in enumerate(self.seeds):
            random = generator("cpu", seed, "init")
            for name, parameter in self.named_parameters():
                if name.endswith((".bias", ".shift")):
                    parameter[replica].zero_()
                elif name.endswith(".scale"):
                    parameter[replica].fill_(1.0)
                else:
                    own = None if name.startswith("blocks.") else self.shape.init_embedding
                    std = self.shape.init if own is None else own
                    if name.endswith(("out.weight", "down.weight")):
                        std /= (2 * self.shape.layers) ** 0.5
                    parameter[replica] = std * torch.randn(parameter.shape[1:], generator=random)

    @property
    def replicas(self) -> int:
        """How many models it holds."""
        return len(self.seeds)

    @property
    def stochastic(self) -> bool:
        """Whether it draws random numbers while it trains."""
        return self.shape.dropout > 0

    @torch.no_grad()
    def pick(self, replicas: Sequence[int]) -> "Transformer":
        """Those replicas alone, copied into a transformer of their own."""
        part = Transformer(self.shape, [self.seeds[replica] for replica in replicas], fresh=False).to(self.position)
        for mine, whole in zip(part.parameters(), self.parameters(), strict=True):
            mine.copy_(whole[replicas])
        return part.train(self.training)

    def embed(self, tokens: Int[Tensor, "replica batch time"]) -> Float[Tensor, "replica batch time width"]:
        """The stream's first state: token plus position."""
        time = tokens.shape[-1]
        if time > self.shape.context:
            raise UserError(f"{time} tokens do not fit in a context of {self.shape.context}; shorten the sequence")
        x = kernels.lookup(self.embedding, tokens)
        return self.drop(x + rearrange(self.position[:, :time], "replica time width -> replica 1 time width"))

    def forward(
        self, tokens: Int[Tensor, "replica batch time"], at: At = None
    ) -> Float[Tensor, "replica batch n vocab"]:
        """Logits of the next token at the positions `at`, or at all; the last block computes no other position."""
        x = self.embed(tokens)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.norm(self.blocks[-1](x, at))
        return kernels.unembed(x, self.embedding if self.unembedding is None else self.unembedding)
