"""Chapter 03: stored models for the reader to question; in the page `gpt2.js` runs them and `ask.js` draws them."""

import json
from base64 import b64encode
from pathlib import Path

from IPython import display

from structure_first.analysis import attention
from structure_first.analysis.stored import RESULTS, of_today
from structure_first.book.figures.tokens import in_haystack
from structure_first.data.diagnostics import KEY, QUERY
from structure_first.evidence.statistics import final
from structure_first.experiments.haystack import EXPERIMENT
from structure_first.runs.jobs import Replica, trained, weights_path

SCALE, PAIRS = "laptop", 6
MODELS = {  # what the page calls each, its cell and its seed
    "random init": ("random init", 101),
    "after Dyck": ("dyck", 100),
    "after shuffled Dyck": ("shuffled dyck", 101),
}


def replicas() -> dict[str, Replica]:
    """The models whose weights are stored, by what the page calls them."""
    recipes = EXPERIMENT.recipes(SCALE)
    return {name: Replica(cell, recipes[cell], seed) for name, (cell, seed) in MODELS.items()}


def asked(results: Path = RESULTS) -> dict:
    """What the page needs: a first haystack, and each model's weights, its share of right answers by its stored row,
    and the head of its last layer that looks most from a query at the value asked for.

    Raises `UserError` where weights are not stored.
    """
    folder, right = results / EXPERIMENT.name, final(of_today(EXPERIMENT, results)[SCALE])
    models = []
    for name, replica in replicas().items():
        task = replica.phase.make()
        scores = attention.scores(trained([replica], folder), task)
        looks = scores[(scores["kind"] == "query → value") & (scores["layer"] == scores["layer"].max())]
        layer, head = looks.loc[looks["score"].idxmax(), ["layer", "head"]]
        told = {"name": name, "right": right[replica.cell, replica.seed], "layer": int(layer), "head": int(head)}
        models.append(told | {"weights": b64encode(weights_path(replica, folder).read_bytes()).decode()})
    count, tokens = int(task.settings["pairs"]), attention.example(PAIRS).tokens[0, :-1]
    return {
        "tokens": tokens.tolist(),
        "keys": list(range(KEY, KEY + count)),
        "queries": list(range(QUERY, QUERY + count)),
        "values": list(range(1, KEY)),
        "written": [in_haystack(token) for token in range(task.vocab)],
        "models": models,
    }


def page(told: dict) -> str:
    """The figure as HTML; where no script runs, a sentence that says so."""
    data = json.dumps(told, separators=(",", ":"))
    return (
        '<figure class="sf-ask" aria-label="A haystack to change, and what three stored models answer">'
        '<div class="sf-ask-here"><p>In the built book, with JavaScript on, three stored models answer here.</p></div>'
        f'\n<script type="application/json">{data}</script><figcaption>Computed in this page by stored models: the'
        " five likeliest answers of each, ✓ at the right one, and where one head of it looks.</figcaption></figure>"
    )


def ask(results: Path = RESULTS) -> None:
    """Put the models on the page."""
    display.display(display.HTML(page(asked(results))))
