"""Sizes of a transformer's body by name."""

from structure_first.errors import check_known

SHAPES = {
    "diagnostic": dict(layers=2, heads=4, width=16),  # Jiang et al. 2026, algorithmic tasks
    "tiny": dict(layers=4, heads=4, width=128),  # text on two CPU cores, in minutes
    "mini": dict(layers=6, heads=6, width=384),  # nanoGPT's characters
    "small": dict(layers=8, heads=8, width=512),
    "gpt2": dict(layers=12, heads=12, width=768),  # Radford et al. 2019, this and the next three
    "gpt2-medium": dict(layers=24, heads=16, width=1024),
    "gpt2-large": dict(layers=36, heads=20, width=1280),
    "gpt2-xl": dict(layers=48, heads=25, width=1600),
    "1.3b": dict(layers=24, heads=16, width=2048),  # GPT-Neo's; the paper's largest has as many parameters
}


def body(name: str) -> dict[str, int]:
    """The layers, heads and width of the shape of that name; raises `UserError` for an unknown one."""
    check_known("shape", name, SHAPES)
    return dict(SHAPES[name])
