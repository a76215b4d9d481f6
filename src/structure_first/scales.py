"""How large everything is run: the names of the scales, from the smallest."""

from structure_first.errors import check_known

SCALES = ("smoke", "laptop", "gpu", "paper")


def checked(scale: str) -> str:
    """The scale, if there is one of that name; else `UserError`."""
    check_known("scale", scale, SCALES)
    return scale
