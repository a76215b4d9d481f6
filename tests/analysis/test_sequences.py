"""What positions tell of each other, and which brackets pair."""

import pytest
import torch

from structure_first.analysis.sequences import mutual_information, partners
from structure_first.seeding import generator


def test_mutual_information_of_a_copy_and_of_chance():
    x = torch.randint(4, (20_000, 2), generator=generator("cpu", 0))
    bits = mutual_information(torch.cat([x, x[:, :1]], 1))
    assert bits[2, 0] == pytest.approx(2, abs=0.01)
    assert bits[2, 1] == bits[1, 0] == 0


def test_partners():
    assert partners([0, 1, 3, 2], 2) == [3, 2, 1, 0]  # ( [ ] )
    assert partners([0, 1, 2, 3], 2) == [2, 3, 0, 1]  # ( [ ) ]
    assert partners([2, 0, 3, 0, 2], 2) == [None, None, None, 4, 3]  # ) ( ] ( )
