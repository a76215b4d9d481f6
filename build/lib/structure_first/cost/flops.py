"""FLOPs, counted from the model: two for each multiply-add of every matrix product, attention and head included."""

from structure_first.data.batch import Source
from structure_first.model.transformer import Shape


def forward_parts(shape: Shape, time: int, window: int | None = None) -> dict[str, int]:
    """Forward FLOPs of a sequence of `time` tokens, by part; the last block computes a window of them only."""
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
