"""With structure in front, how much less text reaches the loss that all of it buys without?

A cell is named `corpus / what comes first / share of the text`. Each share is a run of its own, whose schedule ends
there: read off one long curve, at rates still high, the loss would flatter whichever ends early.
"""

from dataclasses import replace

from structure_first.evidence.statistics import fraction
from structure_first.experiments.additive import BEST, CARRIED, MAIN, SIZES, SOURCES
from structure_first.runs.recipe import Experiment, Recipe

SHARES = ("25 %", "50 %", "70 %", "85 %", "100 %")  # of the text
FRONT = "1 %"  # of stage two's tokens at 100 %, whatever the share of the text
SMALLER = 0.5  # the width at which everything is repeated: does the saving move with the model's size?


def cells(scale: str) -> dict[str, Recipe]:
    """The baseline and what has structure in front, at every share of the text."""
    size, found = SIZES[scale], {}
    half = {**size.body, "width": int(size.body["width"] * SMALLER)}
    for corpus in size.corpora:
        for name, sized in (("", size), (f" / width {half['width']}", replace(size, body=half))):
            for share in SHARES:
                text = sized.phase(corpus, fraction(share))
                found[f"{corpus}{name} / random init / {share}"] = sized.recipe(None, None, text)
                first = sized.front(SOURCES[MAIN], FRONT)
                for carried in dict.fromkeys(("full", BEST[corpus])):
                    end = "" if carried == "full" else f" / {carried}"
                    recipe = sized.recipe(first, CARRIED[carried], text)
                    found[f"{corpus}{name} / {MAIN} {FRONT}{end} / {share}"] = recipe
    return found


EXPERIMENT = Experiment(
    name="substitutive",
    asks="With structure in front, how much less text reaches the same loss?",
    cells=cells,
    seeds={"smoke": 1, "laptop": 3, "gpu": 3, "paper": 3},
    first_seed=506,  # the search for what goes across used 503 to 505
    live=("code / random init / 50 %", "code / random init / 100 %", f"code / {MAIN} {FRONT} / mlp / 50 %"),
    live_seeds=range(600, 601),
)
