"""FLOPs, counted from the model: two for each multiply-add of every matrix product, attention and head included."""

from collections import Counter

from structure_first.data.batch import Source
from structure_first.model.transformer import Shape
from structure_first.training.stage import Stage


def forward_parts(shape: Shape, time: int, window: int | None = None) -> dict[str, int]:
    """Forward FLOPs of a sequence of `time` tokens, by part; the last block computes a `window` of them only."""
    width, full, rest = shape.width, time * (shape.layers - 1), min(window or time, time)
    queries = full + rest  # positions for which a block's queries, MLP and output are computed
    return {
        "attention projections": 2 * width * width * (2 * queries + 2 * time * shape.layers),
        "attention scores": 4 * width * time * queries,
        "MLP": 16 * width * width * queries,
        "head": 2 * width * shape.vocab * rest,
    }


def training(shape: Shape, source: Source) -> int:
    """FLOPs of one training sequence of `source`: forward, and twice that backward."""
    return 3 * sum(forward_parts(shape, source.length - 1, source.window).values())


def updates(stage: Stage, length: int | None, steps: int | None = None) -> Counter[int | None]:
    """How many of the first `steps` updates, or of all, have each length setting; `length` is the source's own."""
    rungs, last = 2 * len(stage.curriculum), stage.steps if steps is None else steps
    counts: Counter[int | None] = Counter()
    ends = [min(last, -(-rung * stage.steps // rungs)) for rung in range(1, len(stage.curriculum) + 1)]
    for each, start, end in zip((*stage.curriculum, length), (0, *ends), (*ends, last), strict=True):
        counts[each] += end - start
    return +counts


def tokens(stage: Stage, source: Source) -> int:
    """How many a stage trains on, unless the source is mastered before."""
    counts = updates(stage, source.length_setting)
    return stage.batch * sum(count * source.at(length).length for length, count in counts.items())


def spent(stage: Stage, source: Source, shape: Shape, steps: int | None = None) -> int:
    """FLOPs of the first `steps` updates of one replica, or of all."""
    counts = updates(stage, source.length_setting, steps)
    return stage.batch * sum(count * training(shape, source.at(length)) for length, count in counts.items())
