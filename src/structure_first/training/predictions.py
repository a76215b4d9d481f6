"""What a model says of a batch, in pieces that a device can hold, and how good it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from structure_first.data.batch import Batch, Source
from structure_first.training import processes
from structure_first.training.compute import Compute
from structure_first.training.protocol import Forward, Model

EVALUATED_AT_ONCE = 500  # sequences, of each replica
LOGITS_AT_ONCE = 1 << 26  # of each replica, where so many sequences have more
WORTH = 7_000  # tokens a thread, from which on a pass over short sequences and one over long take less time than one
UNLIKE = 0.8  # over all, where the short are at most so long


class Predictions(NamedTuple):
    """The positions of a batch that may bear loss: what the model says there, and what stands there."""

    logits: Float[Tensor, "replica batch n vocab"]
    targets: Int[Tensor, "replica batch n"]
    mask: Bool[Tensor, "replica batch n"]  # which of them do
    at: Int[Tensor, "replica batch n"] | None = None  # where they are, the first token left out; None: all

    def losses(self) -> Float[Tensor, "replica batch n"]:
        """In nats; 0 where none is borne."""
        loss = F.cross_entropy(self.logits.float().flatten(0, 2), self.targets.flatten(), reduction="none")
        return loss.view(self.targets.shape) * self.mask

    def nats(self) -> Float[Tensor, " replica"]:
        """The summed loss of each replica."""
        return self.losses().sum((1, 2))


def predict(model: Forward, batch: Batch, window: int) -> Predictions:
    """What the model says of `batch`; only the `window` that bears loss is computed to the end."""
    inputs, at = batch.tokens[..., :-1], None
    if window < inputs.shape[-1]:
        start = batch.loss_mask[..., 1:].byte().argmax(-1, keepdim=True).clamp(max=inputs.shape[-1] - window)
        at = start + torch.arange(window, device=start.device)
    targets, mask = (shifted(whole, at) for whole in batch)
    return Predictions(model(inputs, at), targets, mask, at)


def shifted(
    whole: Shaped[Tensor, "replica batch time"], at: Int[Tensor, "replica batch n"] | None
) -> Shaped[Tensor, "replica batch n"]:
    """What `whole` has at these positions, counted from its second token; None: at all."""
    later = whole[..., 1:]
    return later if at is None else later.gather(-1, at)


def micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    """`batch`, `size` sequences of each replica at a time."""
    for start in range(0, batch.tokens.shape[1], size):
        yield Batch(*(tensor[:, start : start + size] for tensor in batch))


def short_and_long(batch: Batch) -> list[Batch]:
    """The shorter half of each replica's sequences and the longer, each cut where it bears its last loss: nothing that
    comes later changes a causal model's loss. Where they would be about as long: the batch, cut; a small one whole.
    """
    if batch.tokens.numel() < WORTH * torch.get_num_threads():
        return [batch]
    needed = (batch.loss_mask * torch.arange(1, batch.tokens.shape[-1] + 1, device=batch.tokens.device)).amax(-1)
    ordered, order = needed.sort(stable=True)
    middle = ordered.shape[-1] // 2
    short, long = (max(2, int(ordered[:, :stop].amax())) for stop in (max(1, middle), None))
    if short > UNLIKE * long:
        return [Batch(*(tensor[..., :long] for tensor in batch))]
    pieces = ((order[:, :middle, None], short), (order[:, middle:, None], long))
    return [Batch(*(tensor.gather(1, at.expand(-1, -1, end)) for tensor in batch)) for at, end in pieces]


@torch.no_grad()
def evaluate(model: Model, batch: Batch, source: Source, compute: Compute = Compute()) -> dict[str, Tensor]:
    """Loss (nats a token) and accuracy of each replica, over the batches of all processes together.

    Accuracy counts the positions that bear loss and whose token the ones before determine. Of a source of `problems`,
    also the share of whole answers of which every token is right; of one that says what is `in_sight`, the loss there
    and elsewhere, and the `cosine` of the states that the model's last `norm` reads, where it has one.
    """
    model.eval()
    totals = []
    norm = None if source.in_sight is None else getattr(model, "norm", None)  # what reads the states that are looked at
    fit_in = LOGITS_AT_ONCE // (source.window * source.vocab)
    for part in micro_batches(batch, compute.micro_batch or max(1, min(fit_in, EVALUATED_AT_ONCE))):
        with compute.cast(batch.tokens.device), heard(norm) as states:
            predictions = predict(model, part, source.window)
        graded = predictions.mask
        if source.determined is not None:
            graded = graded & shifted(source.determined(part.tokens), predictions.at)
        right = (predictions.logits.argmax(-1) == predictions.targets) & graded
        losses = predictions.losses()
        sums = {"loss": (losses, predictions.mask), "accuracy": (right, graded)}
        if source.in_sight is not None:
            seen = shifted(source.in_sight(part.tokens), predictions.at) & predictions.mask
            new = predictions.mask & ~seen
            sums |= {"loss in sight": (losses * seen, seen), "loss elsewhere": (losses * new, new)}
            if states:
                whole = predictions.mask.any(-1, keepdim=True)  # what only fills up a process's share bears no loss
                sums["cosine"] = (cosine(states[0]) * whole, whole)
        total = {name: [each.sum((1, 2)) for each in pair] for name, pair in sums.items()}
        if source.problems is not None:
            # A sequence that only fills up a process's share has answers, but bears no loss: they are not asked.
            asked = shifted(source.problems(part.tokens), predictions.at) * predictions.mask
            total["problems"] = solved(right, asked)
        totals.append(total)
    model.train()
    means = {}
    for name in totals[0]:
        columns = zip(*(total[name] for total in totals), strict=True)
        value, count = (processes.all_reduce_sum(torch.stack(column).sum(0)) for column in columns)
        means[name] = value / count
    # A model that diverged is right in nothing.
    return {
        name: value if name == "loss" else value.where(means["loss"].isfinite(), torch.nan)
        for name, value in means.items()
    }


@contextmanager
def heard(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """What a module reads meanwhile, each time that it is called."""
    read: list[Tensor] = []
    if module is None:
        yield read
    else:
        with module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
            yield read


def cosine(states: Float[Tensor, "replica batch n width"]) -> Float[Tensor, "replica batch 1"]:
    """The mean cosine between the states at two positions of each sequence: on a plateau of the loss they are nearly
    parallel (Gopalani and Hu 2025).
    """
    directions, positions = F.normalize(states.float(), dim=-1), states.shape[-2]
    pairs = directions.sum(-2).square().sum(-1, keepdim=True) - positions  # each with all others
    return pairs / max(1, positions * (positions - 1))


def solved(
    right: Bool[Tensor, "replica batch n"], number: Int[Tensor, "replica batch n"]
) -> list[Int[Tensor, " replica"]]:
    """How many answers of each replica are right in every token, and how many there are, from the answer's number that
    each token has.
    """
    tokens = torch.zeros(*number.shape[:2], int(number.max()) + 1, dtype=torch.long, device=number.device)
    asked, correct = (tokens.scatter_add(-1, number, each.long())[..., 1:] for each in (number > 0, right))
    return [((asked > 0) & (asked == correct)).sum((1, 2)), (asked > 0).sum((1, 2))]
