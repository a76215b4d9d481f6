"""Chapter two's figure of what replicas cost."""

import pandas as pd
import pytest

from structure_first.analysis.model import replicas_said
from structure_first.book.figures.model import cost_of_replicas


def test_cost_is_drawn_beside_both_proportions():
    index = pd.Index([1, 2, 4], name="replicas")
    found = pd.DataFrame({"seconds a step": [0.01, 0.012, 0.02], "models x steps a second": [100, 167, 200]}, index)
    fig = cost_of_replicas(found)
    drawn = {trace.name: [float(y) for y in trace.y] for trace in fig.data}
    assert drawn["measured"] == pytest.approx([10, 12, 20])
    assert drawn["one after another"] == pytest.approx([10, 20, 40])
    assert drawn["in proportion to the largest"] == pytest.approx([5, 10, 20])
    assert fig.layout.xaxis.type == fig.layout.yaxis.type == "log"
    assert replicas_said(found) == "A step of 4 models at once took 2.0 times as long as that of one."
