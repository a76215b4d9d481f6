"""Key terms are linked once a page, where they first stand in its running text."""

import re

import pytest

INTRO = """# A transformer in the title

A `transformer` in code, then two transformers and a transformer in prose; Dyck words, and a Dyck word.

| a transformer | in a table |
|---|---|
| 1 | 2 |
"""
GLOSSARY = """# Key terms

```{glossary}
transformer
  Layers that "alternate" attention & MLPs.

Dyck word
  Balanced brackets.

word
  What a text is made of.
```
"""


@pytest.fixture(scope="module")
def pages(new_book):
    book = new_book()
    book.write("intro.md", INTRO)
    book.write("glossary.md", GLOSSARY)
    book.write("_toc.yml", "format: jb-book\nroot: intro\nchapters:\n  - file: chapters/01_tiny\n  - file: glossary\n")
    book.build()
    return {name: (book.html / f"{name}.html").read_text() for name in ("intro", "chapters/01_tiny", "glossary")}


def test_the_first_mention_in_prose_is_a_link_with_its_meaning(pages):
    links = re.findall(r'<a class="sf-term" href="(.*?)" data-meaning="(.*?)">(.*?)</a>', pages["intro"])
    assert links == [
        ("glossary.html#term-transformer", "Layers that “alternate” attention &amp; MLPs.", "transformers"),
        ("glossary.html#term-Dyck-word", "Balanced brackets.", "Dyck words"),
    ]
    assert 'id="term-transformer"' in pages["glossary"] and 'id="term-Dyck-word"' in pages["glossary"]


def test_a_page_without_a_term_and_the_glossary_itself_have_no_links(pages):
    assert "sf-term" not in pages["chapters/01_tiny"] + pages["glossary"]
