"""Where every random number comes from."""

import numpy as np
import torch

from structure_first.errors import UserError

MOST = 2**63 - 1  # what a table of results can hold as an integer


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """A generator that depends on `key` alone, for instance on (seed, stage, step).

    Raises `UserError` for a number in it that is negative or has more than 63 bits.
    """
    for part in key:
        if not isinstance(part, str) and not 0 <= part <= MOST:
            raise UserError(f"a seed must be a whole number from 0 to {MOST}, not {part}; choose one of these")
    words = [int.from_bytes(part.encode(), "little") if isinstance(part, str) else part for part in key]
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))
