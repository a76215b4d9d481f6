"""A number in prose that looks measured is the paper's, or of a kind named here; cells print what was measured."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

BOOK = Path(__file__).parents[2] / "book"
PAGES = [BOOK.parent / "README.md", *sorted(BOOK.glob("*.md")), *sorted((BOOK / "chapters").glob("*.ipynb"))]
PAPER = " ".join(
    f"{claim['statement']} {claim['paper']}" for claim in yaml.safe_load((BOOK / "claims.yml").read_text())
)

WORDS = "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand"
NUMBER = rf"(?:\d[\d,.]*|(?:half )?an? (?:hundred|thousand)|(?:two |three )?\b(?:{'|'.join(WORDS.split())}))"
PART = r"(?:an?|one|two|three) (?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|hundredth)s? of\b"
SEEDS = rf"(?!one ){NUMBER} (?:(?:\w+ ){{0,2}}seeds?|of (?:the )?(?:{NUMBER} )?seeds)\b"
UNIT = r"(?:%|per cent\b|nats?\b|bits?\b|times\b|-?fold\b|(?:percentage )?points?\b|seconds?\b|minutes?\b|hours?\b)"
MEASURED = re.compile(rf"(?<![\w.])(?:{NUMBER}(?:,? (?:to|and|or) {NUMBER})?[ -]*{UNIT}|{SEEDS}|{PART})", re.IGNORECASE)
CODE = re.compile(
    r"^ *(`{3,}|~{3,})(?!\{(?:exercise|solution|admonition|dropdown))[^\n]*\n.*?^ *\1[ ]*$", re.DOTALL | re.MULTILINE
)
LITERAL = re.compile(r"(?<!`)`[^`\n]+`(?!`)|\$[^$\n]+\$")
HEADINGS = re.compile(r"^(`{3,}|:{3,})\{(?:exercise|grid-item-card)\}.*$", re.MULTILINE)  # minutes of a lesson

ALLOWED = {  # what a sentence may say beside the paper's numbers, and why it is not measured
    r"95 % interval|median, at 95 %": "the level of every interval",
    r"\b([Oo]ne|ten) per cent\b": "a dose: how much is put in front is a setting",
    r"passed 90 %|comes to 90 %": "a threshold of the analysis",
    r"share above 100 %|the line of its cell stays below 100 %": "what the number would mean",
    r"All ten near 55 %, or half at chance and half near 100 %": "a question's made-up mean",
    r"significant at 5 %": "a question's made-up study",
    r"than five points": "an exercise's question",
    r"suddenly grows a thousandfold": "an exercise's made-up gradient",
    r"three bits in, one bit out": "what an elementary automaton is",
    r"speak of about three bits": "an exercise asks why a caption, which prints it, does",
    r"four times as wide inside": "GPT-2's MLP",
    r"some fifty times as wide": "768 beside 16, both of them settings",
    r"three times as wide": "a rung of the ladder: the width of its first weights",
    r"best rate is four times what|at four times that|may be four times as fast": "a rate that the search tried",
    r"90 minutes|ten-minute path|\*\*Ten minutes\?": "the length of a lesson",
    r"([Ff]rom|takes|Hence|in( all)?) six seeds|six seeds in each|[Ss]ix seeds, and": "how many a verdict takes",
    r"([Oo]f|With) three seeds": "what an interval of the fewest that have one is",
    r"each of a sixth of their tokens|a quarter of the (warm-up|rate)|a tenth of the text|a third of it;": "settings",
    r"[Aa] hundredth of a nat": "how small a gain is looked for",
    r"takes? a quarter of an hour|reads in a quarter of an hour": "what the size was chosen for",
    r"1.4 times as fast \(1.24 to 1.49\)": "measured beside a peer, with the machine and the length that it holds for",
    r"mean accuracy of 55 % over ten seeds": "a question's made-up mean",
}


def sentences(markdown: str) -> Iterator[str]:
    """The running text, without code, formulas and the headings of exercises, a sentence or a table's row at a time."""
    text = LITERAL.sub("", HEADINGS.sub("", CODE.sub("", markdown)))
    for block in re.split(r"\n\s*\n|^ *[-|*] |^\d+\. ", text, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.?!])\s+(?=[A-Z*\[(])", " ".join(block.split()))


def typed(markdown: str) -> list[str]:
    """The sentences with a number that looks measured and is neither the paper's, cited there, nor allowed."""
    found = []
    for sentence in sentences(markdown):
        left = re.sub("|".join(ALLOWED), "", sentence)
        wrong = [each[0] for each in MEASURED.finditer(left) if not ("{cite}" in sentence and papers(each[0]))]
        found += [f"{', '.join(wrong)}: {sentence}"] if wrong else []
    return found


def papers(said: str) -> bool:
    """Whether every figure in it is one that the ledger has from the paper."""
    return all(
        re.search(rf"(?<![\d.]){re.escape(each)}(?![\d.])", PAPER) for each in re.findall(r"\d[\d.]*\d|\d", said)
    )


def markdown(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text()
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_measured_number_is_typed(page):
    assert typed(markdown(page)) == [], "print it by a cell, from rows"


@pytest.mark.parametrize(
    "sentence",
    [
        "After it recall reaches 93 %.",
        "recall reaches 93 % after one per cent of brackets",
        "It is about three minutes on two cores.",
        "| a table | of 0.12 nats |",
        "The paper has a hundred times the parameters.",
        "Recall goes from 10 % to 98 %.",
        "Here recall goes from 12 % to 98 % {cite}`jiang2026procedural`.",
    ],
)
def test_a_measured_number_that_is_typed_is_found(sentence):
    page = markdown(BOOK / "chapters" / "03_haystack_jump.ipynb")
    assert len(typed(f"{page}\n\n{sentence}\n")) == 1


def test_the_papers_numbers_and_what_is_no_prose_are_left_alone():
    assert typed("Recall goes from 10 % to 98 % {cite}`jiang2026procedural`.") == []
    assert (
        typed("```python\nshare = '93 %'\n```\n\nAs `93 %` or $93 %$ says.\n\n```{exercise} easy, 10 minutes\n```")
        == []
    )


def test_every_allowance_is_used():
    text = "\n\n".join(" ".join(sentences(markdown(page))) for page in PAGES)
    assert [each for each in ALLOWED if not re.search(each, text)] == []
