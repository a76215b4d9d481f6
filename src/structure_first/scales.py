"""How large everything is run: the names of the scales, from the smallest."""

from structure_first.errors import unknown

SCALES = ("smoke", "laptop", "gpu", "paper")


def checked(scale: str) -> str:
    """The scale, if there is one of that name; else `UserError`."""
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    return scale
