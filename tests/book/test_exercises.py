"""The exercises that a reader fills in: every solution passes the visible test, and nothing else tried does."""

from pathlib import Path

import pytest

from structure_first.book.exercises import check

CHAPTERS = sorted(path.stem for path in (Path(__file__).parents[2] / "book" / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_solution_passes_its_visible_test_and_an_unfilled_cell_and_a_wrong_one_do_not(stem, exercises, capsys):
    checked, names = exercises(stem)

    def said(*cells: str) -> str:
        for cell in cells:
            exec(cell, names)
        return capsys.readouterr().out.splitlines()[0]

    assert 2 <= len(checked) <= 3
    for fill, visible_test, solution in checked:
        assert said(fill, visible_test) == "not yet: the cell above waits for your code"
        for wrong in ("return None", "return 0", "return 1.0"):
            assert said(fill.replace("raise NotImplementedError", wrong), visible_test).startswith("not yet: ")
        assert said(solution).startswith("right: ")


def test_a_visible_test_says_in_one_line_what_holds_or_what_does_not(capsys):
    def holds():
        """two and
        two are four."""

    def fails():
        raise AssertionError("three,\nnot four")

    def stops():
        [][0]

    again = [check(test) for test in (holds, fails, stops)]
    first = capsys.readouterr().out
    assert [test() for test in again] == [None] * 3, "nothing that a notebook would show"
    said = capsys.readouterr().out
    assert said == first
    assert said.splitlines() == [
        "right: two and two are four.",
        "not yet: three, not four",
        "not yet: your code stops with IndexError: list index out of range",
    ]
