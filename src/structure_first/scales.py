"""How large everything is run: the names of the scales, from the smallest."""

SCALES = ("smoke", "laptop", "gpu", "paper")
