"""Where a query looks: attention in the haystack, head by head."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.registry import source
from structure_first.model.transformer import Transformer
from structure_first.seeding import generator


@torch.no_grad()
def patterns(model: Transformer, batch: Batch) -> list[Float[Tensor, "replica batch head query key"]]:
    """Each layer's attention pattern on `batch`, `[replica batch time]`."""
    x, found = model.embed(batch.tokens), []
    for block in model.blocks:
        found.append(block.attention.weights(block.attention_norm(x)))
        x = block(x)
    return found


def example(pairs: int, count: int = 1, seed: int = 0) -> Batch:
    """Haystack sequences of exactly `pairs` pairs without their answer, `[1 count time]`."""
    tokens, mask = source("haystack", pairs=pairs).draw(40 * count * pairs, generator("cpu", seed, "example"))
    full = mask[:, -1]
    return Batch(tokens[full][None, :count, :-1], mask[full][None, :count, :-1])


def looks(model: Transformer, pairs: int, count: int = 200) -> pd.DataFrame:
    """How much each head takes from the token it would need, averaged over `count` sequences and over replicas.

    `query -> value`: the query from the value of the asked key. `query -> key`: from the asked key itself.
    `value -> key`: each value from the key before it. The first is how recall ends, the third how it begins.
    """
    batch = example(pairs, count)
    tokens = batch.tokens[0]
    key = (tokens[:, :-1:2] == tokens[:, -1:] - 30).long().argmax(1) * 2
    rows, batch = [], Batch(*(tensor.expand(model.replicas, -1, -1) for tensor in batch))
    for layer, pattern in enumerate(patterns(model, batch)):
        query = pattern[:, :, :, -1]  # replica batch head key
        pick = key[None, :, None, None].expand(*query.shape[:3], 1)
        values = torch.arange(1, tokens.shape[1] - 1, 2)
        means = {
            "query -> value": query.gather(-1, pick + 1),
            "query -> key": query.gather(-1, pick),
            "value -> key": pattern[..., values, values - 1].mean(-1, keepdim=True),
        }
        for looks_at, share in means.items():
            for head, value in enumerate(share.mean((0, 1, 3)).tolist()):
                rows.append({"layer": layer, "head": head, "from": looks_at, "share": value})
    return pd.DataFrame(rows)
