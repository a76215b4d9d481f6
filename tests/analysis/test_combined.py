"""What goes across apart from the rule for new rows; and one source's attention with another's MLPs."""

import pandas as pd
import pytest

from structure_first.analysis import combined
from structure_first.analysis.stored import with_factors
from structure_first.book.figures import combined as draw
from structure_first.experiments import haystack, skills

RULES = {  # final accuracy of each seed
    "random init": (0.2, 0.2),
    "dyck / attention / fresh rows": (0.95, 0.2),
    "dyck / attention / mean rows": (0.2, 0.3),
    "dyck / everything / fresh rows": (0.96, 0.97),
    "dyck / everything / mean rows": (0.2, 0.94),
    "dyck / nothing / mean rows": (0.99, 0.99),
}
STARTS = {  # median accuracy in each of combined.TASKS
    "random init": (0.1, 0.6, 0.7, 0.8),
    "set / attention": (0.9, 0.8, 0.5, 0.9),
    "eca / mlp": (0.2, 0.5, 0.6, 0.7),
    "eca / mean rows": (0.1, 0.7, 0.9, 0.7),
    "set + eca / composed": (0.95, 0.75, 0.8, 0.99),
}


def test_what_stage_one_left_stands_by_source(rows_of):
    values = {
        "mastery": (0.8, 0.9, 0.95),
        "rms rows": (0.1, 0.2, 0.3),
        "rms mean row": (0.01, 0.02, 0.02),
        "rms positions": (0.4, 0.5, 0.4),
    }
    parts = ("attention / fresh rows", "everything / mean rows")
    rows = pd.concat(
        rows_of({(f"dyck / {part}", seed): value for part in parts for seed, value in enumerate(each)}, metric)
        for metric, each in values.items()
    )
    table = combined.left(with_factors(rows.reset_index(drop=True), haystack.RULES))
    assert table.loc["dyck"].to_list() == ["90%", "0.200", "0.020", "0.400"]


def test_each_factor_is_counted_over_the_models_that_have_a_partner(rows_of):
    rows = {(cell, seed): {40: value} for cell, values in RULES.items() for seed, value in enumerate(values)}
    found = combined.apart(with_factors(rows_of(rows), haystack.RULES))
    assert combined.apart_said(found) == (
        "Seeds that jumped, by what goes across: *attention* 1 of 4, *everything* 3 of 4; by what the new rows are: "
        "*fresh rows* 3 of 4, *mean rows* 1 of 4."
    )
    table = combined.jumps(found)
    assert list(table.columns) == ["fresh rows", "mean rows"]
    assert table.loc[("dyck", "everything")].to_list() == ["2 of 2 (median 96%)", "1 of 2 (median 57%)"]
    assert table.loc[("dyck", "nothing"), "fresh rows"] == "", "that is random init"
    fig = draw.dots(found, "source", "rows", "across", 0.4)
    assert sum(len(trace.x) for trace in fig.data if trace.mode == "markers") == len(found)
    assert [trace.name for trace in fig.data if trace.showlegend] == ["attention", "everything", "nothing"]
    medians = {trace.name: trace.y[0] for trace in fig.data if trace.mode == "lines"}
    assert medians["mean rows, everything, median"] == 0.57, "the table of numbers tells it from a seed"


@pytest.fixture
def composed(rows_of):
    rows = {
        (f"{task} / {start}", seed): {40: values[place] + shift}
        for start, values in STARTS.items()
        for place, task in enumerate(combined.TASKS)
        for seed, shift in enumerate((-0.01, 0, 0.01))
    }
    rows[("multiplication / set / attention", 0)] = rows[("haystack / set / mlp", 0)] = {40: 0.5}
    return combined.composed(with_factors(rows_of(rows), skills.EXPERIMENT))


def test_what_is_composed_stands_beside_its_parts_and_the_paper(composed):
    assert len(composed) == 5 * 4 * 3
    table = combined.beside_the_paper(composed)
    assert table.loc[(combined.BOTH, "here")].to_list() == ["95.0%", "75.0%", "80.0%", "99.0%", "87.2%"]
    assert table.loc[(combined.BOTH, "paper"), "mean"] == "89.2%"
    assert ("rule 110's MLPs", "paper") not in table.index
    assert combined.composed_said(composed) == (
        "Both together lead in haystack and sorting. Mean over the diagnostics: both together 87%; *random init* 55%, "
        "*Set's attention* 78%, *rule 110's MLPs* 50%, *all of rule 110* 60%."
    )


def test_the_papers_numbers_are_hollow_beside_ours(composed):
    fig = draw.compositions(composed)
    paper = [trace for trace in fig.data if trace.name == "the paper, at its sizes"]
    assert [len(trace.x) for trace in paper] == [len(combined.PAPER["haystack"])] * 4
    assert paper[0].y[-1] == combined.PAPER["haystack"][combined.BOTH]
