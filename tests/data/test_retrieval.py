"""What can be looked up, against a plain reading."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from structure_first.data.retrieval import SPAN, in_sight


@given(
    st.integers(1, 12).flatmap(
        lambda time: st.lists(st.lists(st.integers(0, 2), min_size=time, max_size=time), min_size=1, max_size=4)
    )
)
def test_a_token_is_in_sight_if_the_three_before_it_stood_together_before(rows):
    for row, found in zip(rows, in_sight(torch.tensor(rows)).tolist(), strict=True):
        for place, seen in enumerate(found):
            before = [row[start : start + SPAN] for start in range(place - SPAN)]
            assert seen == (place >= SPAN and row[place - SPAN : place] in before)
