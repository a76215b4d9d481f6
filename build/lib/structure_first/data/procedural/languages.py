"""Languages: sequences of brackets in which every opener finds its closer.

Openers are 0 .. k - 1 and the closer of opener i is i + k; every token but the first bears loss. The default settings
are the semantic stage's (Jiang et al. 2026, procedural data appendix); the diagnostics use shorter words.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from structure_first.data.batch import Batch
from structure_first.data.parts import predicted_from


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
    depth = min(depth or length, length // 2)
    opens = path(count, length, p, depth, generator)
    openers = torch.randint(k, opens.shape, generator=generator, device=opens.device, dtype=narrow(k))
    tokens = torch.empty_like(openers)
    stack = openers.new_empty(depth + 1, count)  # the open brackets, then a spare row
    height = torch.zeros(1, count, dtype=torch.long, device=opens.device)
    for t in range(length):
        rise = opens[t].long()
        stack.scatter_(0, height, openers[t])  # above the top, where a closer does not look
        height += rise - 1
        torch.gather(stack, 0, height, out=tokens[t])
        height += rise
    return word(tokens, opens, k)


def dyck_shuffle(
    count: int,
    generator: torch.Generator,
    *,
    length: int = 2048,
    k: int = 64,
    p: float = 0.5,
    depth: int = 16,
) -> Batch:
    """Brackets of k types in which every opener is closed but types may cross: a closer closes a random open type.

    It opens and closes as `dyck` does, at most `depth` deep. Each type with an open bracket is equally likely to be
    closed, however many brackets of it are open (Hu et al. 2025, whose words may end unclosed; these may not).
    """
    depth = min(depth, length // 2)
    opens = path(count, length, p, depth, generator)
    device = opens.device
    openers = torch.randint(k, opens.shape, generator=generator, device=device, dtype=narrow(k))
    tokens = torch.empty_like(openers)
    listed = openers.new_zeros(depth + 2, count)  # the open types, each once, from row 1 on
    types = torch.zeros(1, count, dtype=torch.int16, device=device)  # how many these are
    brackets = torch.zeros(k, count, dtype=torch.int16, device=device)  # open ones of each type
    for t in range(length):
        rise = opens[t].short()
        choice = torch.rand(1, count, generator=generator, device=device)
        row = (choice.maximum(rise) * types).long() + 1  # of an open type, or for an opener the row after the last
        kind = listed.gather(0, row)
        kind += rise * (openers[t] - kind)  # arithmetic, for `where` is slow where the condition is random
        tokens[t] = kind

        column = kind.long()
        before = brackets.gather(0, column)
        step = 2 * rise - 1
        brackets.scatter_(0, column, before + step)
        changes = before + rise == 1  # none was open and one opens, or one was open and it closes
        last = listed.gather(0, types.long())
        listed.scatter_(0, row, kind + (changes > opens[t]) * (last - kind))  # the last type fills a gap
        types += step * changes
    return word(tokens, opens, k)


def without_choice(tokens: Int[Tensor, "*batch time"], k: int, **_) -> Bool[Tensor, "*batch time"]:
    """Where the closers of whole words had no choice, since all open brackets were of their type."""
    change = torch.where(tokens < k, 1, -1)
    order = (tokens % k).argsort(dim=-1, stable=True)  # type by type; each type's changes add up to nothing
    left = torch.empty_like(change).scatter_(-1, order, change.gather(-1, order).cumsum(-1))  # of a token's own type
    return (tokens >= k) & (left == change.cumsum(-1))


def path(count: int, length: int, p: float, depth: int, generator: torch.Generator) -> Bool[Tensor, "time 1 batch"]:
    """Where a word opens a bracket: heads of a coin, unless nothing is open, the word is too deep or it must end."""
    device = generator.device
    opens = torch.empty(length, 1, count, dtype=torch.bool, device=device)
    height = torch.zeros(1, count, dtype=narrow(length), device=device)
    for t in range(length):
        heads = torch.rand(1, count, generator=generator, device=device) < p
        torch.logical_and(heads | (height == 0), height < min(depth, length - t), out=opens[t])
        height.add_(opens[t], alpha=2).sub_(1)
    return opens


def narrow(k: int) -> torch.dtype:
    """The smallest type for ids of k openers and k closers; a quarter of the memory traffic is half the time."""
    return torch.int16 if 2 * k < 1 << 15 else torch.int32


def word(kinds: Int[Tensor, "time 1 batch"], opens: Bool[Tensor, "time 1 batch"], k: int) -> Batch:
    """The tokens of brackets of these types."""
    tokens = rearrange(kinds.add_(~opens, alpha=k), "time 1 batch -> batch time")
    return predicted_from(1, tokens.contiguous().long())
