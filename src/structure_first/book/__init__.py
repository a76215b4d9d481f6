"""The book: its figures, its pages, its build; and, as a Sphinx extension, its formulas as MathML and its key terms.

Formulas are converted when the book is built, so that a page needs neither a script nor a network to show them.
"""

import re
import sys
from functools import cache

# What checks a notebook would build, as it is loaded, parsers of international addresses, for as long as PyTorch takes
# to load. No notebook has one; jsonschema then leaves them unchecked, in this process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def setup(app):
    """Sphinx's entry point, named in `_config.yml`."""
    from structure_first.book.terms import link_terms

    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.connect("doctree-resolved", link_terms)
    app.connect("html-page-context", _lean)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _lean(app, page, template, context, doctree):
    """Load plotly where there is a figure, and then behind the text; no list without an item; the last change."""
    body = context.get("body", "")
    for script in [each for each in context["script_files"] if str(each.filename).endswith("plotly.min.js")]:
        script.attributes["defer"] = "defer"  # scripts in the head else come before the first paint
        if "sf-figure" not in body:
            context["script_files"].remove(script)
    # docutils calls a bibliography a list, but none of its entries an item; and sphinx-exercise gives all its sections
    # the same two ids. Screen readers stumble over either.
    body = re.sub(r' role="(list|doc-biblioentry)"(?= class="citation|>)', "", body)
    context["body"] = re.sub(r' id="(exercise|solution)-content"', "", body)
    context["last_updated"] = context.get("modified", {}).get(page)


@cache
def _converter():
    from math_core import LatexToMathML

    return LatexToMathML(annotation=True, fancy_error=False)


def _mathml(node, display: bool) -> str:
    from math_core import LatexError
    from sphinx.util import logging

    try:
        return _converter().convert_with_local_state(node.astext(), displaystyle=display)
    except LatexError as error:
        logging.getLogger(__name__).warning("formula: %s in %s", error, node.astext(), location=node)
        return ""


def _visit_inline(translator, node):
    from docutils.nodes import SkipNode

    translator.body.append(translator.starttag(node, "span", "", CLASS="math") + _mathml(node, False) + "</span>")
    raise SkipNode


def _visit_block(translator, node):
    from docutils.nodes import SkipNode
    from sphinx.util.math import get_node_equation_number

    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(_mathml(node, True) + "</div>\n")
    raise SkipNode
