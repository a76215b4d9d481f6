"""What the pages say: the ledger of claims, and the chapter on procedural data."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from structure_first.book import pages
from structure_first.data.registry import CONTROLS, RULES
from structure_first.evidence.store import COLUMNS, Store

BOOK = Path(__file__).parents[2] / "book"
CHAPTER = nbformat.read(BOOK / "chapters" / "01_procedural_data.ipynb", as_version=4)
CODE = [cell.source for cell in CHAPTER.cells if cell.cell_type == "code"]
SOLUTIONS = [
    code
    for cell in CHAPTER.cells
    if cell.cell_type == "markdown"
    for code in re.findall(r"~~~python\n(.*?)~~~", cell.source, re.DOTALL)
]


@pytest.fixture
def results(tmp_path):
    claims = [
        {"id": "ran", "statement": "A | B", "paper": "much", "query": query(treated="control")},
        {"id": "two", "statement": "Both", "paper": "much", "query": query(treated="control", weak="control")},
        {"id": "none", "statement": "Not so", "paper": "some", "query": query(weak="treated")},
        {"id": "later", "statement": "Later", "paper": "more"},
    ]
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(claims))
    values = {"control": 0.1, "weak": 0.3, "treated": 0.9}
    lines = [
        ("trial", "laptop", cell, 2, seed, 100, 1000, 10_000, "accuracy", value)
        for cell, value in values.items()
        for seed in range(6)
    ]
    rows = pd.DataFrame(lines, columns=[name for name in COLUMNS if name != "run"])
    Store(tmp_path / "results" / "trial").append(rows.assign(run="a run"), {"a run": {}})
    return tmp_path / "results"


def query(**compare: str) -> dict:
    pairs = [list(pair) for pair in compare.items()]
    return {"experiment": "trial", "metric": "accuracy", "compare": pairs, "reproduced_from": 0.4}


def test_the_ledger_is_computed(results):
    header, rule, ran, two, none, later = pages.fragments(results)["claims"].splitlines()
    assert header == "| claim | measured here | verdict |"
    assert rule == "| --- | --- | --- |"
    assert ran.startswith(
        "| A \\| B.<br>*Paper: much.* | accuracy +0.80 (+0.80 to +0.80): treated over control; 6 seeds"
    )
    assert "laptop | **✔&nbsp;reproduced** |" in ran
    assert "accuracy +0.20 (+0.20 to +0.20): the weaker of treated over control, weak over control" in two
    assert "**◐&nbsp;partly**" in two
    assert "**✘&nbsp;not&nbsp;reproduced**" in none
    assert later == "| Later.<br>*Paper: more.* |  | not&nbsp;yet&nbsp;run |"


def test_every_claim_of_the_book_has_its_line():
    claims = yaml.safe_load((BOOK / "claims.yml").read_text())
    lines = pages.fragments(BOOK / "results")["claims"].splitlines()
    assert len(lines) == 2 + len(claims)
    for claim in claims:
        assert any(claim["statement"].replace("|", "\\|") in line for line in lines)


def test_the_chapter_exhibits_every_source_and_control():
    shown = set(re.findall(r'exhibit\("(.*?)"', "\n".join(CODE)))
    papers = ["identity", "reverse", "sort", "set", "union", "delete", "stack", "dyck", "dyck_shuffle", "eca"]
    assert shown == {*papers, *CONTROLS, "shuffled:dyck"}


def test_cells_fit_on_a_page_and_figures_go_through_show():
    for code in CODE:
        lines = code.splitlines()
        assert len(lines) <= 15
        assert max(map(len, lines)) <= 80, f"this line is cut off on the page: {max(lines, key=len)}"
        assert "fig.show(" not in code


@pytest.mark.parametrize("code", SOLUTIONS, ids=range(len(SOLUTIONS)))
def test_solutions_run(code, monkeypatch):
    monkeypatch.setenv("STRUCTURE_FIRST_BOOK", "1")
    monkeypatch.setitem(RULES, "rotate", None)  # whatever a solution registers goes with the test
    exec(code, {})


def test_every_exercise_has_a_hidden_solution():
    text = "\n".join(cell.source for cell in CHAPTER.cells)
    exercises = re.findall(r"^```\{exercise\}\n:label: (.*)$", text, re.MULTILINE)
    assert exercises
    assert re.findall(r"^```\{solution\} (.*)\n:class: dropdown$", text, re.MULTILINE) == exercises
