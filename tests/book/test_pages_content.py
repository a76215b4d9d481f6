"""What the pages say: the ledger of claims, and the chapter on procedural data."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml
from markdown_it import MarkdownIt

from structure_first.analysis.answers import verdicts
from structure_first.analysis.claims import ledger
from structure_first.analysis.comparison import COLUMNS, Answer, Comparison, Entry
from structure_first.book import pages
from structure_first.book.exercises import check
from structure_first.book.figures import data as draw
from structure_first.data.registry import CONTROLS, RULES, source
from structure_first.evidence.store import Store
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.model.transfer import Transfer
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.seeding import generator
from structure_first.training.stage import Stage

BOOK = Path(__file__).parents[2] / "book"
CHAPTER = nbformat.read(BOOK / "chapters" / "01_procedural_data.ipynb", as_version=4)
CODE = [
    cell.source
    for cell in CHAPTER.cells
    if cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", ())
]


def trial(scale: str) -> dict[str, Recipe]:
    task = Phase("haystack", Stage(), {"pairs": 2})
    first = Phase("identity", Stage(), {"length": 3})
    rules = {"control": Transfer.only("mlp"), "weak": Transfer.only("attention"), "treated": Transfer()}
    return {name: Recipe(first, each, task) for name, each in rules.items()}


@pytest.fixture
def results(tmp_path, monkeypatch, rows_of, quick):
    monkeypatch.setitem(EXPERIMENTS, "trial", Experiment("trial", "", trial, {}))
    claims = [
        {"id": "ran", "statement": "A | B", "paper": "much", "published": query(treated="control")},
        {"id": "two", "statement": "Both", "paper": "much", "tuned": query(treated="control", weak="control")},
        {"id": "none", "statement": "Not so", "paper": "some", "published": query(weak="treated")},
        {"id": "later", "statement": "Later", "paper": "more"},
    ]
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(claims))
    for cell, value in {"control": 0.1, "weak": 0.3, "treated": 0.9}.items():
        rows = rows_of({(cell, seed): value for seed in range(6)}, run=cell)
        Store(tmp_path / "results" / "trial").append(rows, {cell: {"configuration": trial("laptop")[cell].key}})
    return tmp_path / "results"


def query(**compare: str) -> dict:
    pairs = [list(pair) for pair in compare.items()]
    asked = dict(experiment="trial", metric="accuracy", compare=pairs, reproduced_from=0.4, differ=["transfer"])
    return {"queries": [asked]}


def claims_of(results: Path) -> dict[str, str]:
    """The HTML of each claim of the ledger."""
    parts = pages.fragments(results)["claims"].split('<section class="sf-claim" id="claim-')[1:]
    return dict(part.split('">', 1) for part in parts)


def test_the_ledger_is_computed(results):
    found = claims_of(results)
    assert list(found) == ["ran", "two", "none", "later"]
    ran = found["ran"]
    assert "<strong>A | B.</strong><br>The paper: much." in ran
    assert "As published</p><p><strong>✔ reproduced</strong>" in ran
    assert ": accuracy +0.80 (+0.80 to +0.80); 6 seeds at a size for two cores</p>" in ran
    gain = "accuracy +0.80 (+0.80 to +0.80), 6 seeds at a size for two cores"
    bar = "reproduced if the interval of 6 seeds or more reaches +0.4 with all of it"
    assert f"treated; beside control: {gain}; {bar}." in ran
    command = "structure-first run trial --scale laptop --first-seed 0 --seeds 6"
    assert f"<code>{command} --cells &quot;treated,control&quot; --out again</code>" in ran
    seeds = ", ".join(f"{seed} +0.80" for seed in range(6))
    assert f'Seed by seed: {seeds}; <a href="results/trial/rows.parquet">rows</a>' in ran
    assert "Beside a tuned baseline</p><p>not yet run</p>" in ran
    two = found["two"]
    assert "As published</p><p>not yet run</p>" in two and "◐ partly" in two and ": accuracy +0.20" in two
    assert (
        "of 2 comparisons 1 reproduced" in two
        and "treated; beside control: accuracy +0.80" in two
        and "weak; beside" in two
    )
    assert "✘ not reproduced" in found["none"]
    assert found["later"].count("not yet run") == 2


def test_seeds_with_a_gap_are_made_again_by_two_runs():
    assert pages.stretches([8, 3, 4, 5, 9]) == [(3, 3), (8, 2)]


def test_an_interval_is_drawn_where_it_is(results):
    each = Comparison("a", "b", 0.2, -0.1, 0.5, 6, "laptop", "accuracy", 0.4, "trial", "a; beside b")
    short = replace(each, low=0.396, threshold=0.4)
    assert "(+0.396 to +0.50" in short.told and "(+0.40 to" in replace(short, low=0.404).told
    lines = dict(re.findall(r'<line class="(\w+)" x1="([\d.]+)"', pages.drawn(each)))
    ends = re.search(r'class="bar" x1="([\d.]+)" x2="([\d.]+)".*<circle cx="([\d.]+)"', pages.drawn(each))
    low, high, dot = map(float, ends.groups())
    assert low < float(lines["zero"]) < dot < float(lines["enough"]) < high
    assert dot == pytest.approx((low + high) / 2, abs=0.1)
    never = replace(each, measured=float("-inf"), low=float("-inf"), high=0.1)
    assert "inf" not in pages.drawn(never).partition("aria-label")[0] and "nan" not in pages.drawn(never)


def test_what_a_newspaper_asks_is_answered_first(results):
    assert pages.fragments(results)["answers"] == "", "no newspaper asks for any of these claims"
    claim = {"id": "news", "statement": "S", "asked": "Does it <jump>?", "paper": "", "tuned": query(treated="control")}
    other = {"id": "other", "statement": "", "paper": "", "published": query(treated="control")}
    (results.parent / "claims.yml").write_text(yaml.safe_dump([claim, other]))
    told = pages.fragments(results)["answers"]
    assert '<a href="believe.html#claim-news">Does it &lt;jump&gt;?</a>' in told and "claim-other" not in told
    assert told.endswith("other claims, as published: 1 reproduced.</p>\n")
    assert "As published</p><p>not yet run</p>" in told
    assert "Beside a tuned baseline</p><p><strong>✔ reproduced</strong></p>" in told
    assert "<small>6 seeds, two cores</small>" in told


def test_the_first_page_tells_verdicts_task_by_task_where_they_differ():
    low = Comparison("a", "b", -0.1, -0.2, 0.1, 3, "laptop", "accuracy", 0.1, "trial", "a; beside b", "code")
    high = replace(low, low=0.2, high=0.3, seeds=6, task="math")
    math, language = replace(high, scale="gpu"), replace(low, task="language")
    answer = Answer(3, "laptop", (math, low, replace(low, low=0.05), language), low)
    told = {"reproduced": ["math"], "not reproduced": ["code", "language"]}
    assert answer.by_verdict == told and list(answer.by_verdict) == list(told), (
        "the weakest tells, the best comes first"
    )
    assert answer.sizes == "3 seeds or more, two cores and one GPU"
    front = replace(answer, comparisons=(replace(low, share=0.01), replace(math, share=1.685), low))
    assert front.sizes == "3 seeds or more, two cores and one GPU, front 1 to 170 %"
    assert replace(answer, comparisons=(replace(low, share=0.01),) * 2).sizes.endswith(", front 1 %")
    one = replace(low, scale="paper", learnt=0.5)
    assert (
        Answer(3, "paper", (one,), one).sizes == "3 seeds, the paper's own size, after a stage one learnt to 50% only"
    )
    shown = pages.first([Entry("news", "S", "", "Asked", answer)])
    assert "<strong>✔ reproduced</strong> on math<br><strong>✘ not</strong> on code and language</p>" in shown


def test_every_experiment_has_its_settings_on_a_page(tmp_path):
    (tmp_path / "claims.yml").write_text("[]")
    found = pages.fragments(tmp_path / "results")
    assert re.findall(r"^## (.*)$", found["methods"], re.MULTILINE) == list(EXPERIMENTS)
    assert "### `structure-first run`" in found["verbs"]


def test_few_seeds_are_called_few(results):
    rows = Store(results / "trial").rows()
    for path in (results / "trial").iterdir():
        path.unlink()
    for cell, part in rows[rows["seed"] < 4].groupby("cell"):
        Store(results / "trial").append(part, {cell: {"configuration": trial("laptop")[cell].key}})
    assert ": accuracy +0.80 (+0.80 to +0.80); 4 seeds, which are few, at a size" in claims_of(results)["ran"]


def test_what_a_claim_says_is_no_html(results):
    """Rendered as MyST renders a page: raw HTML is let through."""
    words = "<script>alert(1)</script> <img src=x onerror=alert(1)> & 1 < 2\n| x"
    claim = {"id": "raw", "statement": words, "paper": words}
    (results.parent / "claims.yml").write_text(yaml.safe_dump([claim]))
    page = Page()
    page.feed(MarkdownIt("commonmark").enable("table").render(pages.fragments(results)["claims"]))
    assert set(page.tags) == {"div", "section", "strong", "br", "p"}
    assert page.text.count("<script>alert(1)</script> <img src=x onerror=alert(1)> & 1 < 2 | x.") == 2


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def book_ledger() -> list[Entry]:
    return ledger(BOOK / "claims.yml", BOOK / "results")


def test_every_claim_of_the_book_that_asks_is_answered_from_the_stored_rows(book_ledger):
    claims = yaml.safe_load((BOOK / "claims.yml").read_text())
    assert len(claims) == 11
    for claim, entry in zip(claims, book_ledger, strict=True):
        assert entry.id == claim["id"]
        for column in COLUMNS:
            answer = getattr(entry, column)
            assert (answer is not None) == (column in claim), f"{entry.id}, {column}"
            assert answer is None or answer.seeds >= 3


@pytest.mark.parametrize(
    ("stem", "ids"),
    [
        ("03_haystack_jump", {"haystack", "structure", "not-scale"}),
        ("04_what_each_structure_teaches", {"skills", "structure", "partial", "harm", "mixing"}),
        ("05_a_pinch_of_structure", {"additive", "where", "not-scale"}),
        ("06_same_loss_less_data", {"substitutive", "persists"}),
    ],
)
def test_a_chapter_shows_its_lines_of_the_ledger(stem, ids, book_ledger, monkeypatch):
    cells = nbformat.read(BOOK / "chapters" / f"{stem}.ipynb", as_version=4).cells
    (code,) = (cell.source for cell in cells if cell.source.startswith("say(verdicts("))
    shown = []
    monkeypatch.chdir(BOOK / "chapters")
    exec(code, {"say": shown.append, "verdicts": verdicts})
    lines = shown[0].splitlines()
    entries = [entry for entry in book_ledger if entry.id in ids]
    assert len(lines) == len(entries) == len(ids)
    for entry in entries:
        (line,) = (each for each in lines if each.startswith(f"- *{entry.statement}*: "))
        answers = [answer for answer in (entry.published, entry.tuned) if answer]
        assert re.findall(r"\*\*(.*?)\*\*", line) == [answer.told for answer in answers]


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


def test_the_generator_that_an_exercise_asks_for_is_registered_and_shown(monkeypatch):
    shown = []
    monkeypatch.setenv("STRUCTURE_FIRST_BOOK", "1")
    monkeypatch.setattr("IPython.display.display", lambda it: shown.append(it.data))
    monkeypatch.setitem(RULES, "rotate", None)  # what the solution registers goes with the test
    names = {"draw": draw, "generator": generator, "check": check}
    for code in (cell.source for cell in CHAPTER.cells if cell.id.startswith("new-generator-") and "outputs" in cell):
        exec(code, names)
    *asked, separator, a, b, c, d = source("rotate", length=4, vocab=9).draw(1, generator("cpu", 0)).tokens[0].tolist()
    assert [d, a, b, c] == asked and separator == 9
    assert "rotate: Random tokens, a separator, and the same, the first token last." in shown[0]


def test_every_exercise_has_a_hidden_solution():
    text = "\n".join(cell.source for cell in CHAPTER.cells)
    exercises = re.findall(r"^```\{exercise\} .*\d minutes\n:label: (.*)$", text, re.MULTILINE)
    assert exercises
    assert re.findall(r"^```\{solution\} (.*)\n:class: dropdown$", text, re.MULTILINE) == exercises
