"""The book as one PDF, printed by a real browser."""

import shutil

import pytest

from structure_first.book import printed as module
from structure_first.errors import UserError


def test_every_page_is_bound_in_order_with_an_outline(built_book, missing):
    from pypdf import PdfReader

    if not any(map(shutil.which, module.BROWSERS)):
        missing("Chromium")
    out = built_book.root / "book.pdf"
    assert module.printed(out, built_book.root) == out
    reader = PdfReader(out)
    assert [each.title for each in reader.outline if not isinstance(each, list)] == ["A tiny book", "Tiny chapter"]
    words = [page.extract_text() for page in reader.pages]
    first = next(i for i, text in enumerate(words) if "A computed claim" in text)
    assert first < next(i for i, text in enumerate(words) if "An exercise" in text)


def test_without_a_book_or_a_browser_it_says_so(tiny_book, monkeypatch):
    with pytest.raises(UserError, match="has no page intro; build the book first: make book"):
        module.printed(tiny_book.root / "book.pdf", tiny_book.root)
    for name in ("intro", "chapters/01_tiny"):
        page = tiny_book.html / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<p>A page.")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="no browser is installed"):
        module.printed(tiny_book.root / "book.pdf", tiny_book.root)
    assert not (tiny_book.root / "book.pdf").exists()
