"""Languages: sequences of brackets in which every opener finds its closer.

Openers are 0 .. k - 1 and the closer of opener i is i + k; every token but the first bears loss. The default settings
are the semantic stage's (Jiang et al. 2026, procedural data appendix); the diagnostics use shorter words.
"""

from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.common import ascending, predicted_from


def dyck(
    count: int,
    generator: torch.Generator,
    *,
    length: int = 2048,
    k: int = 64,
    p: float = 0.49,
    depth: int | None = None,
) -> Batch:
    """Balanced brackets of k types, in which a closer always closes the bracket opened last.

    A word opens with probability p, must open when nothing is open, and must close at the depth limit (None: no limit)
    or when only as many tokens are left as brackets are open.
    """
    height = path(count, length, p, min(depth or length, length // 2), generator)
    openers = torch.randint(k, (length, count), generator=generator, device=height.device, dtype=narrow(k))
    tokens = rearrange(openers, "time batch -> batch time").contiguous()

    # Brackets on the same height never nest: sorted by height, then time, each opener comes right before its closer.
    bits = (length - 1).bit_length()
    time = torch.arange(length, dtype=torch.int32, device=height.device)
    key = torch.add(time, torch.minimum(height[:, :-1], height[:, 1:]), alpha=1 << bits)
    order = (ascending(key) & (1 << bits) - 1).long()
    opener, closer = rearrange(order, "batch (pair both) -> both batch pair", both=2)
    tokens.scatter_(1, closer, tokens.gather(1, opener) + k)
    return predicted_from(1, tokens.long())


def dyck_shuffle(
    count: int, generator: torch.Generator, *, length: int = 2048, k: int = 64, p: float = 0.5, depth: int = 16
) -> Batch:
    """Brackets of k types in which every opener is closed but types may cross: a closer closes a random open type.

    It opens and closes as `dyck` does, at most `depth` deep. Each type with an open bracket is equally likely to be
    closed, however many brackets of it are open (Hu et al. 2025, whose words may end unclosed; these may not).
    """
    depth = min(depth, length // 2)
    height = path(count, length, p, depth, generator)
    openers = torch.randint(k, (length, count), generator=generator, device=height.device, dtype=narrow(k))
    choice = torch.rand(length, count, generator=generator, device=height.device)
    opens = rearrange(height[:, 1:] > height[:, :-1], "batch time -> time batch").contiguous()
    kinds = crossing(opens.cpu().numpy(), openers.cpu().numpy(), choice.cpu().numpy(), k, depth)
    tokens = torch.from_numpy(kinds).to(opens.device).add_(~opens, alpha=k)
    return predicted_from(1, rearrange(tokens, "time batch -> batch time").contiguous().long())


def without_choice(tokens: Int[Tensor, "*batch time"], k: int, **_) -> Bool[Tensor, "*batch time"]:
    """Where the closers of whole words had no choice, since all open brackets were of their type."""
    change = torch.where(tokens < k, 1, -1)
    order = (tokens % k).argsort(dim=-1, stable=True)  # type by type; each type's changes add up to nothing
    open_of_type = torch.empty_like(change).scatter_(-1, order, change.gather(-1, order).cumsum(-1))
    return (tokens >= k) & (open_of_type == change.cumsum(-1))


def path(count: int, length: int, p: float, depth: int, generator: torch.Generator) -> Int[Tensor, "batch point"]:
    """How many brackets are open before each token of a word, and after the last.

    A word opens a bracket at heads of a coin, unless nothing is open, the word is too deep or it must end.
    """
    heads = torch.rand(length, count, generator=generator, device=generator.device) < p
    steps = torch.zeros(length + 1, count, dtype=narrow(length), device=heads.device)
    torch.add(steps[1:], heads, alpha=2, out=steps[1:]).sub_(1)
    if depth < length // 2:
        height = torch.from_numpy(bounded(steps.cpu().numpy(), depth)).to(heads.device).t().contiguous()
    else:  # at each odd low of the free walk a word has nothing open, and opens: it is two higher from there on
        height = steps.t().contiguous().cumsum(1, dtype=steps.dtype)
        height -= height.cummin(1).values & -2
    remaining = torch.arange(length, -1, -1, dtype=height.dtype, device=height.device)
    return torch.minimum(height, remaining, out=height)  # once as many brackets are open as tokens are left, all close


def bounded(steps: Int[np.ndarray, "point batch"], depth: int) -> Int[np.ndarray, "point batch"]:
    """The walks of these steps, made in their place, that turn round at 0 and at the depth."""
    highest = [steps.dtype.type(depth - (depth - odd) % 2) for odd in (0, 1)]  # at an odd point a height is odd
    for point, (before, after) in enumerate(pairwise(list(steps)), 1):
        np.add(before, after, out=after)
        np.abs(after, out=after)  # from -1 to 1
        np.minimum(after, highest[point % 2], out=after)  # from one above the depth to one below it
    return steps


def crossing(
    opens: Bool[np.ndarray, "time batch"],
    openers: Int[np.ndarray, "time batch"],
    choice: Float[np.ndarray, "time batch"],
    k: int,
    depth: int,
) -> Int[np.ndarray, "time batch"]:
    """The types of brackets, given those of the openers: each closer closes, by choice, one of the open types.

    A choice depends on all that came before, so this goes token by token. On few words numpy's calls take a fraction of
    the time of torch's, on many its narrow types do; so it runs on the CPU, wherever the generator is.
    """
    up = opens.astype(np.int16)
    down = 1 - up
    kinds, change = openers * up, up - down
    choice = np.where(opens, np.float32(1), choice)  # for an opener the place after the last
    words = np.arange(openers.shape[1])
    list_start, count_start = depth * words, k * words  # where those of each word begin in the next two
    listed = np.zeros(depth * len(words), kinds.dtype)  # the open types, each once
    brackets = np.zeros(k * len(words), np.int16)  # open ones of each type
    types, last = np.zeros(len(words), np.float32), list_start - 1  # how many types are open; where the last is listed
    share, slot, column = types.copy(), list_start.copy(), list_start.copy()
    for kind, chosen, closes, by in zip(kinds, choice, down, change, strict=True):
        np.multiply(chosen, types, out=share)
        np.copyto(slot, share, casting="unsafe")
        slot += list_start
        chosen_type = listed[slot]
        chosen_type *= closes  # arithmetic, for `where` is slow where the condition is random
        kind += chosen_type

        np.add(kind, count_start, out=column)
        before = brackets[column]
        step = by * (before == closes)  # none was open and one opens, or one was open and it closes
        before += by
        brackets[column] = before

        moved = listed[last]
        np.subtract(kind, moved, out=moved)
        moved *= closes * step
        moved += kind
        listed[slot] = moved  # the last type fills a gap
        types += step
        last += step
    return kinds


def narrow(k: int) -> torch.dtype:
    """The smallest type for ids of k openers and k closers; a quarter of the memory traffic is half the time."""
    return torch.int16 if 2 * k < 1 << 15 else torch.int32
