"""Where every random number comes from."""

import numpy as np
import torch


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A generator that depends on `key` alone, for instance on (seed, stage, step)."""
    words = [int.from_bytes(part.encode(), "little") if isinstance(part, str) else part for part in key]
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))
