"""How the book writes and colours tokens, and where a diagnostic's answer comes from: one mapping for every figure.

Keys are letters, the query for a key has a question mark, values are numbers, digits digits, brackets brackets.
"""

from collections.abc import Sequence
from string import ascii_letters

from plotly.colors import sample_colorscale

from structure_first.book.figures.style import GREY
from structure_first.data.batch import Source
from structure_first.data.diagnostics import EQUALS, KEY, PLUS, QUERY, STOP, TIMES

# Cells carry white text, so these are a little darker; they go once round the hues, back to the first.
WHEEL = ("#1170b8", "#7a5bc8", "#b0459c", "#c9453c", "#b35c00", "#7d7200", "#2f7d3f", "#0e7c86", "#1170b8")
GLYPHS = "([{<)]}>"
SIGNS = {PLUS: "+", TIMES: "\N{MULTIPLICATION SIGN}", EQUALS: "=", STOP: "■"}
ARITHMETIC = ("addition", "reversed_addition", "multiplication")


def rule(of: Source) -> str:
    """The rule's name, without that of a control."""
    return of.name.rpartition(":")[2]


def words(of: Source) -> list[str]:
    """How each token of a source is written."""
    base = rule(of)
    if base.startswith("dyck"):
        k = int(of.settings["k"])
        return (
            [*GLYPHS[:k], *GLYPHS[4 : 4 + k]] if k <= 4 else [f"({i}" for i in range(k)] + [f"{i})" for i in range(k)]
        )
    if base == "haystack":
        return ["·", *(in_haystack(token) for token in range(1, of.vocab))]
    if base in ARITHMETIC:
        return [SIGNS.get(token, str(token % 10)) for token in range(of.vocab)]
    written = [str(token) for token in range(of.vocab)]
    if marked(of):
        written[-2:] = ["|", "·"]
    if base == "stack":
        written[0] = "↑"
    return written


def in_haystack(token: int) -> str:
    """A token of a haystack: a key as a letter, the query for it with a question mark, a value as a number."""
    if token < KEY:
        return str(token)
    return ascii_letters.swapcase()[(token - KEY) % (QUERY - KEY)] + "?" * (token >= QUERY)


def marked(of: Source) -> bool:
    """Whether the last two tokens are a separator and a pad."""
    return of.vocab == of.settings.get("vocab", of.vocab) + 2


def silent(of: Source) -> dict[str, int]:
    """The tokens that hold the others apart, by their roles."""
    if rule(of) == "haystack":
        return {"pad": 0}
    return {"separator": of.vocab - 2, "pad": of.vocab - 1} if marked(of) else {}


def shades(of: Source) -> list[str]:
    """A colour for each token: evenly round the hues, a closer like its opener, an output digit like the digit; signs,
    and the keys and queries of a haystack, grey.
    """
    if rule(of) in ARITHMETIC:
        hues = sample_colorscale(WHEEL, [digit / 10 for digit in range(10)])
        return [GREY if token in SIGNS else hues[token % 10] for token in range(of.vocab)]
    kinds = KEY if rule(of) == "haystack" else int(of.settings.get("k", of.vocab - 2 * marked(of)))
    colours = sample_colorscale(WHEEL, [token % kinds / kinds for token in range(of.vocab)])
    if rule(of) == "haystack":
        colours[KEY:] = [GREY] * (of.vocab - KEY)
    for token in silent(of).values():
        colours[token] = GREY
    return colours


def origins(of: Source, tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Which places tell the answer of a diagnostic, as pairs of a place that tells and one that is told: the value
    beside the asked key; for a sum its units, the only digit that no carry can change.
    """
    tokens = list(tokens)
    if of.name == "haystack":
        query = next(place for place, token in enumerate(tokens) if token >= QUERY)
        return [(tokens.index(tokens[query] - QUERY + KEY) + 1, query + 1)]
    if of.name in ARITHMETIC[:2]:
        plus, equals, last = tokens.index(PLUS), tokens.index(EQUALS), len(tokens) - 1 - (tokens[-1] == STOP)
        first = of.name == "reversed_addition"
        return [(at, equals + 1 if first else last) for at in ((0, plus + 1) if first else (plus - 1, equals - 1))]
    return []
