"""Attention, looked at: where each head looks, what kind of head it is, and what the skill loses without it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product

import pandas as pd
import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from structure_first.analysis.sequences import partners
from structure_first.data.batch import Batch, Source
from structure_first.data.diagnostics import KEY, QUERY
from structure_first.data.registry import source
from structure_first.model.transformer import Block, Transformer
from structure_first.seeding import generator

# What a head does, and the weights that do it.
PARTS = {
    "where it looks": ("query", "key"),
    "what it writes": ("value", "out"),
    "both": ("query", "key", "value", "out"),
}
ALL = -1  # in place of a head: all heads of the layer

Change = Callable[[Transformer, slice], None]  # of some replicas of a model, in place


def blocks(model: Transformer) -> list[Block]:
    """The layers; torch's list of modules does not tell of which type they are."""
    return [block for block in model.blocks if isinstance(block, Block)]


@torch.no_grad()
def patterns(
    model: Transformer, tokens: Int[Tensor, "batch time"]
) -> Float[Tensor, "layer replica batch head query key"]:
    """Each layer's attention pattern, all replicas on the same sequences."""
    x = model.embed(repeat(tokens.to(model.position.device), "... -> replica ...", replica=model.replicas))
    by_layer = []
    for block in blocks(model):
        by_layer.append(block.attention.weights(block.attention_norm(x)))
        x = block(x)
    return torch.stack(by_layer)


def example(pairs: int, count: int = 1, seed: int = 0) -> Batch:
    """Haystack sequences of exactly `pairs` pairs, the answer their last token, `[count time]`."""
    tokens, mask = source("haystack", pairs=pairs).draw(40 * count * pairs, generator("cpu", seed, "example"))
    full = mask[:, -1]
    return Batch(tokens[full][:count], mask[full][:count])


def asked(tokens: Int[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Where the key stands that the last token of each haystack asks for; its value stands after it."""
    return (tokens[:, :-1] == tokens[:, -1:] - QUERY + KEY).long().argmax(1)


def needed(tokens: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where recall has to look, from which place of a haystack at which: in the first layer from each value at its key,
    in the last from the query at the value it asks for.
    """
    end, key = len(tokens) - 1, asked(torch.tensor([tokens])).item()
    return [(value, value - 1) for value in range(1, end, 2)], [(end, int(key) + 1)]


# What kind of head it is


@torch.no_grad()
def scores(model: Transformer, of: Source, count: int = 200) -> pd.DataFrame:
    """How much of each kind each head of a model of the source's tokens is: replica, layer, head, kind, score.

    A score is the share of attention, in the mean over `count` sequences and all their places of that kind:
    - `previous token`: to the token before, where random tokens come twice;
    - `induction`: there, from a token's second coming to what followed its first;
    - `bracket match`, on Dyck words: from the place before a closer to the opener it closes, unless that is the same;
    - `value → key`, in the haystack: from a value to the key before it; `query → key`: from the query to the key it
      asks for; `query → value`: to that key's value.
    But `copying` is how much a head raises the logit of what it sees, from -1 to 1: see `copying`.
    """
    random = generator("cpu", 0, "heads")
    tokens, mask = of.draw(1_000, random)
    used, half = tokens.unique(), model.shape.context // 2
    once = used[torch.multinomial(torch.ones(count, len(used)), half, half > len(used), generator=random)]
    twice = patterns(model, torch.cat([once, once], 1))
    by_kind = {
        "previous token": twice.diagonal(-1, -2, -1).mean((2, 4)),
        "induction": twice.diagonal(1 - half, -2, -1)[..., 1:].mean((2, 4)),
        "copying": copying(model, tokens[mask].unique()),
    }
    if of.name == "dyck":
        words = of.draw(count, random).tokens
        by_kind["bracket match"] = share(patterns(model, words[:, :-1]), closings(words, int(of.settings["k"])))
    if of.name == "haystack":
        tokens = example(int(of.settings["pairs"]), count).tokens[:, :-1]
        pattern, key = patterns(model, tokens), asked(tokens)
        by_kind["value → key"] = pattern.diagonal(-1, -2, -1)[..., ::2].mean((2, 4))
        for kind, place in {"query → key": key, "query → value": key + 1}.items():
            by_kind[kind] = share(pattern, (torch.arange(count), torch.tensor(-1), place))
    scores, names = torch.stack(list(by_kind.values())), ["kind", "layer", "replica", "head"]
    index = pd.MultiIndex.from_product([list(by_kind), *map(range, scores.shape[1:])], names=names)
    return pd.Series(scores.flatten().tolist(), index, name="score").reset_index()


def share(
    pattern: Float[Tensor, "layer replica batch head query key"], places: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "layer replica head"]:
    """The mean attention at `places`: sequence, query and key."""
    by_place = rearrange(pattern, "layer replica batch head query key -> batch query key layer replica head")
    return by_place[places].mean(0)


def closings(words: Int[Tensor, "batch time"], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sequence, place before each closer of Dyck words, and place of the opener it closes, unless these two are the
    same.
    """
    places = [
        (sequence, place - 1, opener)
        for sequence, word in enumerate(words.tolist())
        for place, opener in enumerate(partners(word, k))
        if opener is not None and opener < place - 1
    ]
    sequence, before, opener = torch.tensor(places, dtype=torch.long).view(-1, 3).T  # also of no place
    return sequence, before, opener


@torch.no_grad()
def copying(model: Transformer, tokens: Int[Tensor, " token"]) -> Float[Tensor, "layer replica head"]:
    """How much each head, where it looks at one of `tokens`, raises the logit of just that one.

    It is the sum of the eigenvalues of the head's map from tokens to logits over the sum of their sizes (Elhage et al.
    2021). That map is a product of thin matrices; multiplied in a circle it is as small as the head and has the same
    eigenvalues but for zeros. What all logits have in common tells no token from another and is left out.
    """
    table, heads = model.embedding if model.unembedding is None else model.unembedding, model.shape.heads
    logits = table[:, tokens] * model.norm.scale[:, None]
    logits = logits - logits.mean(1, keepdim=True)
    by_layer = []
    for block in blocks(model):
        seen = block.attention_norm(model.embedding[:, None, tokens])[:, 0]
        value = block.attention.key_value.weight.chunk(2, -1)[1]
        value = rearrange(value, "replica width (head d) -> replica head width d", head=heads)
        out = rearrange(block.attention.out.weight, "replica (head d) width -> replica head d width", head=heads)
        there = einsum(logits, seen, "replica token o, replica token i -> replica o i")[:, None]
        values = torch.linalg.eigvals(out @ there @ value)
        by_layer.append(values.real.sum(-1) / values.abs().sum(-1))
    return torch.stack(by_layer)


# What the skill loses


@torch.no_grad()
def accuracy(model: Transformer, batch: Batch) -> Float[Tensor, " replica"]:
    """The share of right answers; every sequence of `[batch time]` has as many tokens that bear loss."""
    tokens, mask = (repeat(part, "... -> replica ...", replica=model.replicas) for part in batch)
    at = mask[..., 1:].nonzero()[:, -1].view(*mask.shape[:2], -1)
    device = model.position.device
    right = model(tokens[..., :-1].to(device), at.to(device)).argmax(-1).cpu() == tokens[..., 1:].gather(-1, at)
    return right.float().mean((1, 2))


def weights(model: Transformer, layer: int, heads: slice) -> dict[str, list[Tensor]]:
    """Views of the heads' own weights, by what they are for."""
    attention, width = blocks(model)[layer].attention, model.shape.width // model.shape.heads
    mine, split = (..., heads, slice(None)), "replica ... (head d) -> replica ... head d"
    keys, values = zip(*(each.chunk(2, -1) for each in attention.key_value.parameters()), strict=True)
    read = {"query": attention.query.parameters(), "key": keys, "value": values}
    views = {part: [rearrange(each, split, d=width)[mine] for each in both] for part, both in read.items()}
    rows = rearrange(attention.out.weight, "replica (head d) width -> replica head d width", d=width)
    return views | {"out": [rows[:, heads]]}


@torch.no_grad()
def changed(model: Transformer, batch: Batch, changes: Mapping[tuple, Change], names: Sequence[str]) -> pd.DataFrame:
    """Accuracy on `batch` after each change, by its key, and by replica; all run as replicas of one program."""
    many = model.pick([replica for _ in changes for replica in range(model.replicas)])
    for number, change in enumerate(changes.values()):
        change(many, slice(number * model.replicas, (number + 1) * model.replicas))
    right = rearrange(accuracy(many, batch), "(change replica) -> change replica", replica=model.replicas)
    index = pd.MultiIndex.from_tuples(changes, names=names)
    table = pd.DataFrame(right.tolist(), index).rename_axis(columns="replica")
    return table.stack().rename("accuracy").reset_index()


def ablations(model: Transformer, batch: Batch) -> pd.DataFrame:
    """The accuracy when one head writes the same everywhere, its mean over `batch`: layer, head, replica, accuracy.

    The mean is over the places that the layer computes: all, but in the last layer those of the answers.
    """
    means = []
    outs = [block.attention.out for block in blocks(model)]
    hooks = [out.register_forward_pre_hook(lambda _, mixed: means.append(mixed[0].mean((1, 2)))) for out in outs]
    accuracy(model, batch)
    for hook in hooks:
        hook.remove()

    def ablate(layer: int, head: int, many: Transformer, those: slice) -> None:
        (rows,) = weights(many, layer, slice(head, head + 1))["out"]
        mean = rearrange(means[layer], "replica (head d) -> replica head d", head=model.shape.heads)[:, head]
        bias = blocks(many)[layer].attention.out.bias
        bias[those] += einsum(mean, rows[those, 0], "replica d, replica d width -> replica width")
        rows[those] = 0

    places = product(range(model.shape.layers), range(model.shape.heads))
    return changed(model, batch, {place: partial(ablate, *place) for place in places}, ["layer", "head"])


def patches(model: Transformer, donor: Transformer, batch: Batch) -> pd.DataFrame:
    """The accuracy when one head, or `ALL` of a layer, is the `donor`'s: layer, head, part, replica, accuracy."""

    def patch(layer: int, head: int, part: str, many: Transformer, those: slice) -> None:
        heads = slice(None) if head == ALL else slice(head, head + 1)
        mine, theirs = weights(many, layer, heads), weights(donor, layer, heads)
        for name in PARTS[part]:
            for tensor, other in zip(mine[name], theirs[name], strict=True):
                tensor[those] = other

    places = product(range(model.shape.layers), [*range(model.shape.heads), ALL], PARTS)
    return changed(model, batch, {place: partial(patch, *place) for place in places}, ["layer", "head", "part"])
