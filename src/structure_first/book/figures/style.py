"""The book's style, and what puts something on a page: a figure, a table, the source of a function.

A figure sets no text or background colour, since the page draws it in the colours of its theme; trace colours are of
middle lightness, so that they stand out from white and from black.
"""

import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterable
from html import escape

import pandas as pd
import plotly.graph_objects as go
from IPython import display
from plotly.subplots import make_subplots

PALETTE = ("#0f7fc4", "#d55e00", "#009e73", "#b968a8", "#a98600", "#7d6fd0", "#d0564f", "#5b9a1e", "#8a8d91")
GREY = PALETTE[-1]
MEANING = {  # what a colour says throughout the book: that of the first word which a name holds; of none, a stage one's
    "random init": GREY,
    **dict.fromkeys(("permuted", "rotated"), PALETTE[1]),  # its numbers, without what they had learnt
    **dict.fromkeys(("shuffled", "random tokens"), PALETTE[2]),  # trained as long, on no structure
    **dict.fromkeys(("longer", "as many FLOPs", "text"), PALETTE[4]),  # as much spent on something else
    "init": PALETTE[3],  # other first weights, and no stage one
    "attention": PALETTE[5],  # of a stage one, this alone
    "mlp": PALETTE[6],
    **dict.fromkeys(("mean rows", "embeddings"), PALETTE[7]),  # what its embedding rows do
    "rescaled": PALETTE[7],  # what it had learnt, without its size
}
DOTTED = {"dash": "dot", "color": GREY}  # a level that lines are held against
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # for names of one colour
CLEAR = "rgba(0,0,0,0)"
INK = ((0, "rgba(15,127,196,0)"), (1, "rgba(15,127,196,1)"))  # a colour scale that begins with the page itself

TEMPLATE = go.layout.Template(
    layout={
        "colorway": PALETTE,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.05, "yanchor": "bottom", "tracegroupgap": 0},
        "modebar": {"remove": ["zoom", "pan", "select", "lasso", "zoomIn", "zoomOut", "autoScale"]},
        "xaxis": {"zeroline": False},
        "yaxis": {"zeroline": False},
    }
)


def show(fig: go.Figure, alt: str, caption: str) -> None:
    """Put a figure on the page with a text alternative and a caption; outside a build, as plotly shows it, and the
    caption.
    """
    if not os.environ.get("STRUCTURE_FIRST_BOOK"):
        fig.show()
        return say(caption)
    display.display(display.HTML(html(fig, alt, caption)))


def html(fig: go.Figure, alt: str, caption: str) -> str:
    """A figure as a page of the book holds it; the book's scripts draw it, and its numbers as a table.

    Its JSON has not even a "<", which plotly escapes: "<!--<script>" would make a script of the rest of the page. Below
    a figure words stand plain, without the marks of Markdown.
    """
    alt, caption = (re.sub("[*`]", "", words) for words in (alt, caption))
    return (
        f'<figure class="sf-figure" aria-label="{escape(alt)}"><div class="sf-plot"></div>\n'
        f'<script type="application/json">{fig.to_json()}</script>'
        f"<noscript><p>This figure is drawn by JavaScript. It shows: {escape(alt, quote=False)}</p></noscript>"
        f"<figcaption>{escape(caption, quote=False)}</figcaption>"
        '<details class="sf-data"><summary>The numbers</summary></details></figure>'
    )


def table(frame: pd.DataFrame, folded: str = "") -> None:
    """Put a table on the page, its index as columns like the others and no text cut short; `folded` behind a line."""
    with pd.option_context("display.max_colwidth", None):
        rows = frame.reset_index().rename_axis(columns=None).to_html(index=False, justify="left", border=0)
    display.display(display.HTML(f"<details><summary>{escape(folded)}</summary>{rows}</details>" if folded else rows))


def say(words: str) -> None:
    """Put a sentence on the page whose numbers were computed."""
    display.display(display.Markdown(words))


def read(*functions: Callable) -> None:
    """Put the source of functions on the page, as it runs."""
    code = "\n".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    display.display(display.Markdown(f"```python\n{code}```"))


def plain(height: int, **layout) -> go.Figure:
    """An empty figure in the book's style."""
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def facets(
    frame: pd.DataFrame, height: int, across: str | None = None, down: str | None = None, turned: int = 0, **grid
) -> tuple[go.Figure, list[tuple[dict[str, int], pd.DataFrame]]]:
    """A panel for each value of the columns `across` and `down`, and the place and the rows of each; `turned` is what
    turned names on the x axis take beyond numbers, in pixels, and `grid` what else plotly's `make_subplots` is told.
    """
    columns, rows = (list(dict.fromkeys(frame[by])) if by else [None] for by in (across, down))
    fig = make_subplots(len(rows), len(columns), **{"subplot_titles": columns if across else rows} | grid)
    parts = []
    for row, here in enumerate(rows, 1):
        of_row = frame[frame[down] == here] if down else frame
        for column, there in enumerate(columns, 1):
            part = of_row[of_row[across] == there] if across else of_row
            parts.append(({"row": row, "col": column}, part))
    small = {"font": {"size": 9}}
    titles = [each.to_plotly_json() | small for each in fig.layout.annotations]
    narrow = small | {"annotations": titles} if down else stacked(fig, len(columns), height, turned)
    fig.update_layout(meta={"narrow": narrow})
    return fig.update_layout(template=TEMPLATE, height=height), parts


def stacked(fig: go.Figure, panels: int, height: int, turned: int = 0) -> dict:
    """The layout of a phone for panels that stand side by side: below each other, at three quarters of their height."""
    high = 20 * max((1 + each.text.count("<br>") for each in fig.layout.annotations if each.text), default=1)  # a title
    each, taller = 1 / panels, round(height * 0.75 * panels) + turned * (panels - 1)
    names = (80 + high + turned) / taller  # room for what stands between two panels
    layout: dict = {"height": taller, "legend": {"y": 1 + (10 + high) / taller}, "annotations": []}
    for place in range(panels):
        axis, top = str(place + 1) if place else "", 1 - place * each
        layout[f"xaxis{axis}"] = {"domain": [0, 1]}
        layout[f"yaxis{axis}"] = {"domain": [top - each + names, top], "showticklabels": True}
    for place, title in enumerate(fig.layout.annotations):
        layout["annotations"].append(title.to_plotly_json() | {"x": 0.5, "y": 1 - place * each})
    return layout


def meant(name: str) -> str:
    """The colour of what a run or a cell is."""
    return next((colour for word, colour in MEANING.items() if word in name), PALETTE[0])


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The line of each name: in the colour that it means, those of one colour told apart by dashes."""
    by_name: dict[str, dict[str, str]] = {}
    for name in names:
        alike = sum(look["color"] == meant(name) for look in by_name.values())
        by_name[name] = {"color": meant(name), "dash": DASHES[alike % len(DASHES)]}
    return by_name
