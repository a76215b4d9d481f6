"""Key terms: where a page first uses one it links to the glossary and shows the meaning, by pointer or tab key."""

import re
from html import escape

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

GLOSSARY = "glossary"
NOT_IN = (
    nodes.title,
    nodes.literal,
    nodes.reference,
    nodes.pending,
    nodes.table,
    nodes.citation,
    addnodes.pending_xref,
)
NOT_OF = {"cell_output", "sd-card"}  # classes of what is no running text


def link_terms(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Replace the first mention of each term in a page's running text; pages of HTML alone, but for the glossary's."""
    if app.builder.format != "html" or page == GLOSSARY or GLOSSARY not in app.env.found_docs:
        return
    left = terms(app)
    for text in list(doctree.findall(nodes.Text)):
        if in_prose(text):
            pieces = linked(str(text), left, app.builder.get_relative_uri(page, GLOSSARY))
            if len(pieces) > 1:
                text.parent.replace(text, pieces)


def terms(app: Sphinx) -> dict[str, tuple[str, str]]:
    """The anchor and the meaning of each term of the glossary."""
    entries = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = next(item.findall(nodes.definition)).astext()
        for term in item.findall(nodes.term):
            entries[term.astext()] = (term["ids"][0], " ".join(meaning.split()))
    return entries


def in_prose(text: nodes.Text) -> bool:
    """Whether the text is of a paragraph that people read, and in nothing that has a meaning of its own."""
    above, paragraph = text.parent, False
    while above:
        if isinstance(above, NOT_IN) or NOT_OF & set(above.get("classes", ())):
            return False
        paragraph |= isinstance(above, nodes.paragraph)
        above = above.parent
    return paragraph


def linked(text: str, left: dict[str, tuple[str, str]], glossary: str) -> list[nodes.Node]:
    """The text with links at the terms in it that are `left`, which they then no longer are; the longest term first."""
    names = {name.lower(): name for name in left}
    longest_first = "|".join(re.escape(each) for each in sorted(names, key=len, reverse=True))
    pieces: list[nodes.Node] = []
    end = 0
    term = rf"(?<![\w-])(?!front of\b)({longest_first})s?(?![\w-])"
    for mention in re.finditer(term, text, re.IGNORECASE) if names else ():
        if name := names.pop(mention[1].lower(), None):
            anchor, meaning = left.pop(name)
            opened = f'<a class="sf-term" href="{glossary}#{anchor}" data-meaning="{escape(meaning)}">'
            link = nodes.raw("", f"{opened}{escape(mention[0])}</a>", format="html")
            pieces += [nodes.Text(text[end : mention.start()]), link]
            end = mention.end()
    return [*pieces, nodes.Text(text[end:])]
