"""`structure-first bench`: how fast this machine is, as ratios from one run, beside the targets."""
