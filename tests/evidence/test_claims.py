"""Verdicts follow from rows: which seeds count, which comparison decides, and what each verdict needs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from structure_first.errors import UserError
from structure_first.evidence.claims import as_json, ledger
from structure_first.evidence.store import Store

QUERY = dict(experiment="haystack", metric="accuracy", compare=[["dyck", "random init"]], reproduced_from=0.4)
FIELDS = ["id", "statement", "paper", "measured", "low", "high", "seeds", "scale", "verdict"]


class Book:
    """A file of one claim, and a folder of results."""

    def __init__(self, folder):
        self.claims, self.results = folder / "claims.yml", folder / "results"
        self.ask()

    def ask(self, **changes):
        claim = dict(id="haystack", statement="It jumps", paper="10 % to 98 %", query=QUERY | changes)
        self.claims.write_text(yaml.safe_dump([claim]))

    def measure(self, cell, values, scale="laptop", first_seed=0, stage=2, metric="accuracy"):
        rows = pd.DataFrame(
            dict(experiment="haystack", scale=scale, cell=cell, stage=stage, seed=first_seed + seed, metric=metric)
            | dict(step=step, tokens=step, flops=step, value=value if step == 200 else 0.1)
            for seed, value in enumerate(values)
            for step in (100, 200)
        )
        Store(self.results / "haystack").append(
            rows.assign(run=f"{cell} {scale} {first_seed}"), {f"{cell} {scale} {first_seed}": {}}
        )

    @property
    def entry(self):
        (entry,) = ledger(self.claims, self.results)
        return entry


@pytest.fixture
def book(tmp_path) -> Book:
    return Book(tmp_path)


def test_nothing_has_run(book):
    entry = book.entry
    assert (entry.verdict, entry.measured, entry.low, entry.high, entry.scale) == ("not yet run", *[None] * 4)
    assert entry.seeds == 0
    book.measure("dyck", [1.0] * 6)
    assert book.entry.verdict == "not yet run", "there is nothing to compare it with"
    book.measure("random init", [0.1] * 6, first_seed=10)
    assert book.entry.verdict == "not yet run", "no seed has both"
    book.measure("random init", [0.1] * 6, scale="smoke")
    assert book.entry.verdict == "not yet run", "the scales are not mixed"


def test_what_is_saved_is_the_text_that_the_losses_do_without(book):
    book.ask(metric="loss", saved=True, compare=[["warm", "cold"]], reproduced_from=0.2)
    for share, loss in (("50 %", 2.0), ("100 %", 1.0)):
        book.measure(f"warm / {share}", [loss] * 6, metric="loss")
    assert book.entry.verdict == "not yet run"
    book.measure("cold / 50 %", [3.0] * 6, metric="loss")
    assert book.entry.verdict == "not yet run", "all of the text has not been read without it"
    book.measure("cold / 100 %", [2.0] * 5 + [1.5], metric="loss")
    assert (book.entry.measured, book.entry.verdict, book.entry.seeds) == (0.5, "reproduced", 6)
    book.ask(metric="loss", saved=True, compare=[["cold", "warm"]], reproduced_from=0.2)
    assert (book.entry.measured, book.entry.verdict) == (-np.inf, "not reproduced")


def test_a_lower_loss_is_a_gain(book):
    book.ask(metric="loss", reproduced_from=0.1)
    book.measure("dyck", [1.5] * 6, metric="loss")
    book.measure("random init", [1.75] * 6, metric="loss")
    assert (book.entry.measured, book.entry.verdict) == (0.25, "reproduced")


@pytest.mark.parametrize(
    ("dyck", "verdict"),
    [
        ([0.98, 0.99, 1.0, 0.97, 0.99, 0.99], "reproduced"),
        (
            [0.98, 0.99, 0.3, 0.97, 0.3, 0.3],
            "partly",
        ),  # always above zero, not always half the effect
        ([0.98, 0.1, 0.1, 0.15, 0.1, 0.1], "not reproduced"),
        ([0.1] * 6, "not reproduced"),
        ([0.05] * 6, "not reproduced"),
        ([0.98] * 5, "partly"),  # too few seeds for the whole word
    ],
)
def test_the_verdict_follows_from_the_interval(book, dyck, verdict):
    book.measure("dyck", dyck)
    book.measure("random init", [0.1] * 6)
    entry = book.entry
    assert entry.verdict == verdict and entry.seeds == len(dyck) and entry.scale == "laptop"
    assert entry.measured == pytest.approx(np.median(dyck) - 0.1)
    assert entry.low <= entry.measured <= entry.high


def test_only_second_stages_last_values_count(book):
    book.measure("dyck", [0.99] * 6)
    book.measure("random init", [0.1] * 6)
    before = book.entry
    book.measure("dyck", [0.0] * 6, stage=1)
    assert book.entry == before


def test_gains_are_paired_by_seed(book):
    """The cells differ far less than the seeds do, and always the same way."""
    base = np.linspace(0.1, 0.5, 8)
    book.measure("dyck", base + 0.45)
    book.measure("random init", base)
    entry = book.entry
    assert entry.verdict == "reproduced" and entry.high - entry.low < 1e-9


def test_seeds_of_the_search_do_not_count(book):
    book.measure("dyck", [1.0] * 6 + [0.1] * 6)
    book.measure("random init", [0.1] * 12)
    book.ask(search_seeds=[0, 1, 2, 3, 4, 5])
    assert book.entry.verdict == "not reproduced" and book.entry.seeds == 6
    book.ask(search_seeds=list(range(12)))
    assert book.entry.verdict == "not yet run"


def test_a_claim_of_several_comparisons_is_as_good_as_the_weakest(book):
    book.ask(compare=[["dyck", "random init"], ["set", "random init"]])
    book.measure("random init", [0.1] * 10)
    book.measure("dyck", [0.6] * 10)
    assert book.entry.verdict == "not yet run"
    book.measure("set", [1.0] * 6 + [0.1] * 3)  # a higher median, but not a dependable one
    entry = book.entry
    assert entry.verdict == "not reproduced" and entry.seeds == 9 and entry.measured == pytest.approx(0.9)
    book.measure("set", [1.0] * 10)
    assert book.entry.verdict == "reproduced" and book.entry.measured == pytest.approx(0.5)


def test_a_seed_that_diverged_is_not_left_out(book):
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [1.0] * 2 + [np.nan] * 4)
    entry = book.entry
    assert entry.verdict == "not reproduced" and entry.seeds == 6
    assert as_json([entry])[0]["measured"] is None
    json.dumps(as_json([entry]), allow_nan=False)


def test_the_largest_scale_with_enough_seeds_answers(book):
    for scale, gain, seeds in [("laptop", 0.1, 6), ("gpu", 0.9, 6), ("paper", 0.0, 1)]:
        book.measure("dyck", [0.1 + gain] * seeds, scale)
        book.measure("random init", [0.1] * seeds, scale)
    assert (book.entry.scale, book.entry.verdict) == ("gpu", "reproduced")


def test_json_has_the_promised_fields(book):
    book.measure("dyck", [1.0] * 6)
    book.measure("random init", [0.1] * 6)
    (entry,) = json.loads(json.dumps(as_json(ledger(book.claims, book.results))))
    assert list(entry) == FIELDS


@pytest.mark.parametrize(
    "text",
    [
        "- id: [",
        "",
        "just words",
        "haystack: 3",
        "- [1, 2]",
        "- id: haystack",
        "- {id: a, statement: b, paper: c, query: words}",
        "- {id: a, statement: b, paper: c, query: {experiment: haystack}}",
        "- {id: a, statement: b, paper: c, query: {experiment: haystack, metric: accuracy, compare: [dyck]}}",
        "- {id: a, statement: b, paper: c, query: {experiment: haystack, metric: accuracy, "  # no threshold
        "compare: [[dyck, random init]]}}",
        b"\xff\xfe\x00",
        None,
    ],
)
def test_broken_claims_are_one_line(book, text):
    book.measure("dyck", [1.0] * 6)
    book.measure("random init", [0.1] * 6)
    book.claims.unlink()
    if text is not None:
        book.claims.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match="cannot read the claims in") as caught:
        ledger(book.claims, book.results)
    assert "\n" not in str(caught.value) and str(caught.value).rstrip()[-1] != ":"


def test_the_books_own_claims_can_be_read(tmp_path):
    listed = ledger(Path(__file__).parents[2] / "book" / "claims.yml", tmp_path)
    assert len(listed) == 11 and len({entry.id for entry in listed}) == 11
    assert {entry.verdict for entry in listed} == {"not yet run"}
