"""With structure in front, how much less text reaches the loss that all of it buys without?

A cell is named `corpus / what comes first / share of the text`. Each share is a run of its own, whose schedule ends
there: read off one long curve, at rates still high, the loss would flatter whichever ends early.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from structure_first.experiments.text import BEST, CARRIED, FORMER_SIZES, MAIN, SIZES, SOURCES, Size, called, percent
from structure_first.runs.recipe import Cell, Experiment, Factors

SHARES = (0.25, 0.5, 0.7, 0.85, 1.0)  # of the text
FRONT = 0.01  # of stage two's tokens when all of the text is read, whatever the share of the text
SMALLER = 0.5  # the width at which everything is repeated: does the saving move with the model's size?


def cells(scale: str, sizes: Mapping[str, Size] = SIZES) -> dict[str, Cell]:
    """The baseline and what has structure in front, at every share of the text."""
    if scale not in sizes:
        return {}
    size, by_name = sizes[scale], dict[str, Cell]()
    half = replace(size.body, width=int(size.body.width * SMALLER))
    for corpus in size.corpora:
        for sized in (size, replace(size, body=half)):
            width = sized.body.width
            named = corpus if sized is size else f"{corpus} / width {width}"
            for share in SHARES:
                text, first = sized.phase(corpus, share), sized.front(SOURCES[MAIN], FRONT)
                at_share = [Cell(sized.recipe(None, None, text), Factors(corpus, text=share, width=width))]
                for carried in dict.fromkeys(("full", BEST[corpus])):
                    factors = replace(at_share[0].factors, front=MAIN, carried=carried, share=FRONT)
                    at_share.append(Cell(sized.recipe(first, CARRIED[carried], text), factors))
                for each in at_share:
                    by_name[f"{called(replace(each.factors, task=named))} / {percent(share)}"] = each
    return by_name


EXPERIMENT = Experiment(
    name="substitutive",
    asks="With structure in front, how much less text reaches the same loss?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3, "paper": 3},
    first_seed=506,  # the search for what goes across used 503 to 505
    live=("code / random init / 50 %", "code / random init / 100 %", f"code / {MAIN} {percent(FRONT)} / mlp / 50 %"),
    live_seeds=range(600, 601),
)
FORMER = replace(EXPERIMENT, name="substitutive_2x64", cells=partial(cells, sizes=FORMER_SIZES), live=())
