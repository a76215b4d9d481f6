"""Slides: what is on them, that they draw without a network, and that each chapter has a deck of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest
from nbformat import NotebookNode
from selenium.webdriver.support.ui import WebDriverWait

from structure_first.book.figures.style import html
from structure_first.book.slides import slides
from structure_first.errors import UserError

FRAME = Path(__file__).parents[2]
FIGURE = html(go.Figure(go.Scatter(x=[1, 2], y=[3, 4])), alt="a line", caption="It rises.")
CELLS = {  # by id: source, mark
    "first": ("# Tiny chapter\n\nA long introduction.", {"slide_type": "fragment", "text": "Does it *rise*?"}),
    "answer": ("show()", {"slide_type": "slide", "title": "The answer", "at": "end"}),
    "unmarked": ("## Details\n\nNobody shows these.", None),
    "figure": ("draw()", {"slide_type": "slide"}),
    "questions": (
        "## Questions\n\n1. Who?\n\n:::{dropdown} Answers\n1. Nobody.\n:::",
        {"slide_type": "slide"},
    ),
}


def output(data: str, kind: str = "text/html") -> NotebookNode:
    return nbformat.v4.new_output("display_data", {kind: data, "text/plain": "<an object>"})


@pytest.fixture
def marked(tiny_book) -> Callable[..., Path]:
    """The deck of a chapter whose cells are marked and ran; `shown` is what its figure's cell put out."""
    shutil.copytree(FRAME / "book" / "_slides", tiny_book.book / "_slides")

    def made(*shown: NotebookNode) -> Path:
        outputs = {
            "answer": [output("**Yes**, by $1 + 1$.", "text/markdown")],
            "figure": list(shown) or [output(FIGURE), output("Said below.", "text/markdown")],
        }
        chapter = nbformat.v4.new_notebook()
        for key, (source, mark) in CELLS.items():
            new = nbformat.v4.new_code_cell if key in outputs else nbformat.v4.new_markdown_cell
            chapter.cells.append(new(source, id=key, metadata={"slideshow": mark} if mark else {}))
        chapter.cells.append(nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}))
        nbformat.write(chapter, tiny_book.book / "chapters" / "01_tiny.ipynb")
        for cell in chapter.cells:
            cell.update({"outputs": outputs[cell.id]} if cell.id in outputs else {})
        ran = tiny_book.book / "_build" / "executed" / "smoke" / "chapters" / "01_tiny.ipynb"
        ran.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(chapter, ran)
        return slides("smoke", tiny_book.root).parent / "01_tiny.html"

    return made


def test_a_deck_has_the_marked_cells_and_draws_without_a_network(marked, browser):
    deck = marked()
    assert "01_tiny.html" in (deck.parent / "index.html").read_text()
    browser.get("about:blank")  # the browser's own first page may still be loading what it needs
    browser.get_log("performance")
    browser.get(deck.as_uri())
    wait = WebDriverWait(browser, 60, 0.1)
    wait.until(lambda it: it.execute_script("return window.Reveal && Reveal.isReady()"))
    titles = "return [...document.querySelectorAll('.slides h1, .slides h2')].map((it) => it.textContent)"
    assert browser.execute_script(titles) == ["Tiny chapter", "Details", "Questions", "The answer"]
    text = browser.execute_script("return document.querySelector('.slides').textContent")
    assert all(words in text for words in ("Does it rise?", "It rises.", "Who?", "Yes"))
    assert not any(words in text for words in ("long introduction", "Nobody", "Said below", "draw()", "<an object>"))
    assert browser.execute_script("return document.querySelectorAll('math').length") == 1
    browser.execute_script("Reveal.slide(1)")
    drawn = "return document.querySelector('.present .sf-plot .main-svg')?.getBoundingClientRect().height > 300"
    wait.until(lambda it: it.execute_script(drawn))
    wait.until(lambda it: it.execute_script("return location.hash") == "#/1")  # written once a second at most
    browser.refresh()
    wait.until(lambda it: it.execute_script(drawn))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert any("/plotly.min.js" in url for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_what_would_ask_the_network_is_refused_and_the_last_slides_stay(marked):
    deck = marked()
    before = deck.read_text()
    with pytest.raises(UserError, match=r"without a network, but load 01_tiny\.html: https://example\.org/a\.png"):
        marked(output('<img src="https://example.org/a.png" alt="">'))
    assert deck.read_text() == before
    assert sorted(path.name for path in deck.parents[1].iterdir()) == ["executed", "slides"]


def test_what_has_not_run_or_was_changed_since_is_named(marked, tiny_book):
    marked()
    with pytest.raises(UserError, match="01_tiny has not run at laptop; build the book first: make book SCALE=laptop"):
        slides("laptop", tiny_book.root)
    path = tiny_book.book / "chapters" / "01_tiny.ipynb"
    path.write_text(path.read_text().replace("draw()", "draw(2)"))
    with pytest.raises(UserError, match="cell figure was changed since it ran; build the book again"):
        slides("smoke", tiny_book.root)
    path.write_text(path.read_text().replace("slide_type", "type"))
    with pytest.raises(UserError, match="no cell is marked"):
        slides("smoke", tiny_book.root)


@pytest.mark.parametrize("path", sorted((FRAME / "book" / "chapters").glob("*.ipynb")), ids=lambda path: path.stem)
def test_each_chapter_has_a_deck_that_asks_predicts_answers_and_ends_with_what_to_believe(path):
    metadata = [cell.metadata for cell in nbformat.read(path, 4).cells]
    assert not [mark for mark in metadata if "slide_type" in mark], "a mark outside of `slideshow` marks nothing"
    marks = [mark["slideshow"] for mark in metadata if "slideshow" in mark]
    titles = [mark["title"] for mark in marks if "title" in mark]
    assert 8 <= len(marks) <= 12
    assert "**The question:**" in marks[0]["text"]
    for asked in ("Predict", "The answer", "What to believe"):
        assert any(title.startswith(asked) for title in titles), asked
    assert all(len(mark.get("text", "")) < 600 for mark in marks), "a slide is no page"
