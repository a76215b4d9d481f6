"""Verdicts follow from rows: which seeds count, which comparison decides, and what each verdict needs."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest
import yaml

from structure_first.analysis.answers import as_json, verdicts
from structure_first.analysis.claims import ledger
from structure_first.analysis.comparison import Comparison
from structure_first.errors import UserError
from structure_first.evidence.store import Store
from structure_first.experiments.registry import EXPERIMENTS
from structure_first.model.transfer import Transfer
from structure_first.runs.recipe import Cell, Experiment, Factors, Phase, Recipe
from structure_first.training.stage import Stage

PLAIN = Recipe(None, None, Phase("haystack", Stage(), {"pairs": 2}))
WARM = Recipe(Phase("dyck", Stage(), {"k": 4, "length": 8}, tied=True), Transfer(), PLAIN.stage_two)


def cells(scale: str) -> dict[str, Cell | Recipe]:
    found = {"random init": PLAIN, "dyck": WARM, "dyck permuted": replace(WARM, transfer=Transfer(attention="permute"))}
    found["set"] = replace(WARM, stage_one=replace(WARM.stage_one, source="set", settings={"length": 4}))
    found["dyck, faster"] = replace(WARM, stage_two=PLAIN.stage_two.at(lr=0.1))
    for share in (0.5, 1.0):
        text = PLAIN.stage_two.at(steps=round(share * 1_000))
        for front, recipe in {"cold": PLAIN, "warm": WARM}.items():
            part = Cell(replace(recipe, stage_two=text), Factors(front=front, text=share))
            found[f"{front} / {100 * share:g} %"] = part
    return found


TRIAL = Experiment("trial", "Does it jump?", cells, {})
QUERY = dict(experiment="trial", metric="accuracy", compare=[["dyck", "random init"]], reproduced_from=0.4)
QUERY |= dict(differ=["stage_one", "transfer"])


class Book:
    """A file of one claim, and a folder of results."""

    def __init__(self, folder, rows_of):
        self.claims, self.results, self.rows_of = folder / "claims.yml", folder / "results", rows_of
        self.ask()

    def ask(self, cases="all", **changes):
        asked = dict(cases=cases, queries=[QUERY | changes])
        claim = dict(id="haystack", statement="It jumps", paper="10 % to 98 %", published=asked)
        self.claims.write_text(yaml.safe_dump([claim]))

    def measure(self, cell, values, seeds=None, key=None, scale="laptop", **other):
        """Each seed's last value, after another one; the seeds are numbered from 0 unless they are given."""
        run = f"{cell} {scale} {key}"
        curves = {(cell, seed): {100: 0.1, 200: value} for seed, value in zip(seeds or count(), values, strict=False)}
        rows = self.rows_of(curves, run=run, scale=scale, **other)
        key = key or TRIAL.recipes(scale)[cell].key
        Store(self.results / "trial").append(rows, {run: {"configuration": key}})

    @property
    def answer(self):
        (entry,) = ledger(self.claims, self.results)
        assert entry.tuned is None
        return entry.published


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "trial", TRIAL)


@pytest.fixture
def book(tmp_path, rows_of) -> Book:
    return Book(tmp_path, rows_of)


def test_nothing_has_run(book):
    assert book.answer is None
    book.measure("dyck", [1.0] * 6)
    assert book.answer is None, "there is nothing to compare it with"
    book.measure("random init", [0.1] * 6, range(10, 16))
    assert book.answer is None, "no seed has both"
    book.measure("random init", [0.1] * 6, scale="smoke")
    assert book.answer is None, "the scales are not mixed"


def test_what_is_saved_is_the_text_that_the_losses_do_without(book):
    pair, asked = ["warm / 100 %", "cold / 100 %"], dict(metric="loss", saved="runs", reproduced_from=0.2)
    book.ask(**asked, compare=[pair])
    for share, loss in (("50 %", 2.0), ("100 %", 1.0)):
        book.measure(f"warm / {share}", [loss] * 6, metric="loss")
    assert book.answer is None
    book.measure("cold / 50 %", [3.0] * 6, metric="loss")
    assert book.answer is None, "all of the text has not been read without it"
    book.measure("cold / 100 %", [2.0] * 5 + [1.5], metric="loss")
    assert (book.answer.decides.measured, book.answer.verdict, book.answer.seeds) == (0.5, "reproduced", 6)
    book.ask(**asked, compare=[pair[::-1]])
    assert (book.answer.decides.measured, book.answer.verdict) == (-np.inf, "not reproduced")
    book.ask(**asked, compare=[pair], search_seeds=[5])
    assert book.answer.seeds == 5
    book.measure("warm / 50 %", [np.nan, 2.0], metric="loss")
    assert book.answer.seeds == 5, "one that diverged is not left out"
    book.measure("cold / 100 %", [np.nan], metric="loss")
    assert book.answer.decides.by_seed[0] == (0, -np.inf) and book.answer.seeds == 5, "nor is one it is beside"


def test_a_comparison_says_how_well_its_stage_one_was_learnt(book):
    """Of the seeds that count, wherever the stage one stands; an unlearnt one has little to hand on."""
    ends = pd.DataFrame({"seed": range(7), "metric": "accuracy", "value": [0.7] * 7})
    learnt = pd.DataFrame({"seed": range(7), "metric": "mastery", "value": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]})
    shared = dict(experiment="trial", scale="laptop", cell="dyck", stage=2, step=0, tokens=0, flops=0.0, run="front")
    Store(book.results / "trial").append(
        pd.concat([ends, learnt]).assign(**shared), {"front": {"configuration": WARM.key}}
    )
    book.measure("random init", [0.1] * 5)
    (plain,) = ledger(book.claims, book.results)
    assert plain.published.decides.learnt == 0.6, "of the five seeds that have both"
    assert plain.published.decides.in_words.endswith("after a stage one learnt to 60% only")
    book.ask(compare=[["random init", "dyck"]])
    assert book.answer.decides.learnt == 0.6, "beside it, too"
    book.measure("dyck, faster", [0.7] * 5)
    book.ask(compare=[["dyck, faster", "random init"]], differ=["stage_one", "transfer", "stage_two"])
    assert np.isnan(book.answer.decides.learnt), "nothing was measured"
    assert "learnt" not in book.answer.decides.in_words


def test_a_lower_loss_is_a_gain(book):
    book.ask(metric="loss", reproduced_from=0.25)
    book.measure("dyck", [1.5] * 6, metric="loss")
    book.measure("random init", [1.75] * 6, metric="loss")
    assert (book.answer.decides.measured, book.answer.verdict) == (0.25, "reproduced")


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
        ([0.98] * 3, "partly"),
        ([0.98] * 2, "too few seeds"),  # for any
    ],
)
def test_the_verdict_follows_from_the_interval(book, dyck, verdict):
    book.measure("dyck", dyck)
    book.measure("random init", [0.1] * 6)
    entry = book.answer
    assert entry.verdict == verdict and entry.seeds == len(dyck) and entry.scale == "laptop"
    assert entry.decides.measured == pytest.approx(np.median(dyck) - 0.1)
    assert entry.decides.low <= entry.decides.measured <= entry.decides.high


def test_only_second_stages_last_values_count(book):
    book.measure("dyck", [0.99] * 6)
    book.measure("random init", [0.1] * 6)
    before = book.answer
    book.measure("dyck", [0.0] * 6, stage=1)
    assert book.answer == before


def test_gains_are_paired_by_seed_and_not_by_position(book):
    """The cells differ far less than the seeds do, and always the same way."""
    base = np.linspace(0.1, 0.5, 8)
    book.measure("dyck", base + 0.45)
    book.measure("random init", [*base[2:], 0.9, 0.9], range(2, 10))  # the first two seeds have yet to run
    entry = book.answer
    assert (entry.verdict, entry.seeds) == ("reproduced", 6) and entry.decides.high - entry.decides.low < 1e-9
    assert entry.decides.measured == pytest.approx(0.45)


def test_what_is_measured_is_the_median_of_the_differences(book):
    book.measure("dyck", [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.0])
    book.measure("random init", [0.0, 0.1, 0.2, 0.9, 0.9, 0.9, 0.9])
    assert book.answer.decides.measured == pytest.approx(0.1), "the medians themselves differ by -0.5"


def test_rows_that_todays_cells_do_not_make_answer_nothing(book):
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [1.0] * 6, key="former recipe")
    assert book.answer is None
    book.measure("dyck", [0.1] * 6)
    assert (book.answer.verdict, book.answer.seeds, book.answer.decides.measured) == ("not reproduced", 6, 0.0)


def test_seeds_of_the_search_do_not_count(book):
    book.measure("dyck", [1.0] * 6 + [0.1] * 6)
    book.measure("random init", [0.1] * 12)
    book.ask(search_seeds=[0, 1, 2, 3, 4, 5])
    assert book.answer.verdict == "not reproduced" and book.answer.seeds == 6
    book.ask(search_seeds=list(range(12)))
    assert book.answer is None


def test_a_claim_of_several_comparisons_is_as_good_as_the_weakest(book):
    book.ask(compare=[["dyck", "random init"], ["set", "random init"]])
    book.measure("random init", [0.1] * 10)
    book.measure("dyck", [0.6] * 10)
    assert book.answer is None
    book.measure("set", [1.0] * 6 + [0.1] * 3)  # a higher median, but not a dependable one
    entry = book.answer
    assert entry.verdict == "not reproduced" and entry.seeds == 9 and entry.decides.measured == pytest.approx(0.9)
    book.measure("set", [1.0] * 10)
    assert book.answer.verdict == "reproduced" and book.answer.decides.measured == pytest.approx(0.5)
    book.measure("set", [0.55] * 4 + [1.0] * 6)
    assert book.answer.decides.treated == "set", "both are reproduced, and this one is less dependable"


def test_a_claim_has_the_seeds_and_the_scale_of_its_rarest_comparison(book):
    book.ask(compare=[["dyck", "random init"], ["set", "random init"]])
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [0.6] * 6)
    book.measure("set", [1.0] * 3)  # higher than the other
    entry = book.answer
    assert (entry.seeds, entry.verdict, len(entry.comparisons)) == (3, "partly", 2)
    assert entry.decides.low == pytest.approx(0.9), "the comparison of few seeds is the one that decides"
    assert [each.seeds for each in entry.comparisons] == [6, 3]
    book.measure("set", [1.0] * 6, scale="gpu")
    book.measure("random init", [0.1] * 6, scale="gpu")
    entry = book.answer
    assert (entry.seeds, entry.verdict, entry.scale) == (6, "reproduced", "laptop")
    assert [each.scale for each in entry.comparisons] == ["laptop", "gpu"]


def test_what_a_comparison_without_a_gain_means_to_its_claim_is_said(book):
    book.ask(compare=[["dyck", "random init"]], lacking="there was no gain to carry")
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [0.1] * 6)
    assert book.answer.told == "not reproduced: there was no gain to carry"
    book.measure("dyck", [1.0] * 6)
    assert book.answer.told == "reproduced"


def test_the_gain_that_was_missing_is_said_whichever_comparison_decides(book):
    gain, twin = ({"compare": [["dyck", other]]} for other in ("random init", "set"))
    asked = dict(queries=[QUERY | gain | {"lacking": "there was no sure gain"}, QUERY | twin])
    claim = dict(id="haystack", statement="It jumps", paper="10 % to 98 %", published=asked)
    book.claims.write_text(json.dumps([claim]))  # which has no aliases
    for cell, accuracy in {"dyck": 0.1, "random init": 0.1, "set": 0.3}.items():
        book.measure(cell, [accuracy] * 6)
    assert book.answer.decides.control == "set" and book.answer.told == "not reproduced: there was no sure gain"


def test_where_a_case_is_enough_the_strongest_counts(book):
    pairs = [["dyck", "random init"], ["set", "random init"]]
    book.ask("any", compare=pairs)
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [0.1] * 6)
    assert (book.answer.verdict, len(book.answer.comparisons)) == ("not reproduced", 1), "the other has yet to run"
    book.measure("set", [1.0] * 6)
    entry = book.answer
    assert (entry.verdict, entry.decides.measured) == ("reproduced", pytest.approx(0.9))
    assert [each.verdict for each in entry.comparisons] == ["not reproduced", "reproduced"]
    book.ask("all", compare=pairs)
    assert book.answer.verdict == "not reproduced"


def test_a_share_that_is_saved_can_be_read_off_one_curve(book):
    """A curve that passes halfway, between two evaluations, what the other ends at."""
    book.ask(metric="loss", saved="curve", reproduced_from=0.2)
    for cell, ends in {"dyck": (3.0, 1.5, 1.0), "random init": (3.0, 2.5, 2.0)}.items():
        run = f"{cell} {ends}"
        curves = {(cell, seed): dict(zip((0, 100, 400), ends, strict=True)) for seed in range(6)}
        beside = {(cell, seed): {50: 0.5} for seed in range(6)}  # which is no loss of stage two
        parts = [(curves, {"metric": "loss"}), (beside, {"metric": "loss", "stage": 1}), (beside, {})]
        rows = pd.concat([book.rows_of(values, run=run, **what) for values, what in parts])
        Store(book.results / "trial").append(rows, {run: {"configuration": TRIAL.recipes("laptop")[cell].key}})
    assert (book.answer.decides.measured, book.answer.verdict) == (pytest.approx(0.75), "reproduced")
    book.ask(metric="loss", saved="curve", compare=[["random init", "dyck"]])
    assert (book.answer.decides.measured, book.answer.verdict) == (-np.inf, "not reproduced")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiment": "trail"}, "claim 'haystack': unknown experiment 'trail'; did you mean 'trial'?"),
        ({"compare": [["dick", "random init"]]}, "claim 'haystack': unknown cell 'dick'; did you mean 'dyck'?"),
        ({"compare": [["dyck", "random inti"]]}, "claim 'haystack': unknown cell 'random inti'; did you mean"),
        (
            {"compare": [["dyck, faster", "random init"]]},
            "'dyck, faster' and 'random init' differ in stage_two too; it allows for stage_one, transfer",
        ),
        ({"differ": ["stage_one"]}, "claim 'haystack': 'dyck' and 'random init' differ in transfer too"),
        ({"compare": [["dyck", "random init"], ["cold / 100 %", "warm / 50 %"]]}, "differ in stage_two too"),
    ],
)
def test_a_claim_that_compares_what_it_does_not_say_is_one_line(book, changes, said):
    book.measure("dyck", [1.0] * 6)
    book.measure("random init", [0.1] * 6)
    assert book.answer.verdict == "reproduced"
    book.ask(**changes)
    with pytest.raises(UserError) as caught:
        ledger(book.claims, book.results)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_seed_that_diverged_is_not_left_out(book):
    book.measure("random init", [0.1] * 6)
    book.measure("dyck", [1.0] * 2 + [np.nan] * 4)
    entry = book.answer
    assert entry.verdict == "not reproduced" and entry.seeds == 6
    assert entry.decides.gain() == "none (none to +0.900)"
    told = as_json(ledger(book.claims, book.results))
    assert told[0]["published"]["measured"] is None
    json.dumps(told, allow_nan=False)


def test_the_largest_scale_with_enough_seeds_answers(book):
    for scale, gain, seeds in [("smoke", 0.9, 6), ("laptop", 0.1, 8), ("gpu", 0.9, 6), ("paper", 0.0, 1)]:
        book.measure("dyck", [0.1 + gain] * seeds, scale=scale)
        book.measure("random init", [0.1] * seeds, scale=scale)
    assert (book.answer.scale, book.answer.verdict) == ("gpu", "reproduced")
    elsewhere = [(each.scale, each.seeds, each.verdict) for each in book.answer.decides.elsewhere]
    assert elsewhere == [("laptop", 8, "partly"), ("smoke", 6, "reproduced"), ("paper", 1, "too few seeds")]
    assert book.answer.decides.otherwise == {"laptop": "partly"}
    assert book.answer.decides.in_words.endswith("; partly at a size for two cores")


def test_json_has_the_promised_fields(book):
    book.measure("dyck", [1.0] * 6)
    book.measure("random init", [0.1] * 6)
    (entry,) = json.loads(json.dumps(as_json(ledger(book.claims, book.results))))
    assert list(entry) == ["id", "statement", "paper", "published", "tuned"] and entry["tuned"] is None
    answer = entry["published"]
    assert list(answer) == ["measured", "low", "high", "seeds", "scale", "verdict", "comparisons"]
    (comparison,) = answer["comparisons"]
    assert list(comparison) == ["treated", "control", "measured", "low", "high", "seeds", "scale"]
    assert comparison["treated"] == "dyck" and comparison["measured"] == answer["measured"] == pytest.approx(0.9)


ASKED = "- {{id: a, statement: b, paper: c, tuned: {{queries: [{}]}}}}"
ASKS = "{experiment: trial, metric: accuracy, compare: [[dyck, random init]], differ: [], reproduced_from: 0.4}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- id: [", "is no YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "an alias; write out what it stands for"),
        ("[" * 1100, "more than 16 levels deep"),
        ("#" * 70_000, "has more than 65,536 bytes"),
        ("", "it must be a list, not None"),
        ("haystack: 3", "it must be a list, not {'haystack': 3}"),
        ("- [1, 2]", "[0] must be an object, not [1, 2]"),
        ("- id: haystack", "[0].statement is missing"),
        ("- {id: 3, statement: b, paper: c}", "[0].id must be text, not 3"),
        ("- {id: a, statement: [b], paper: c}", "[0].statement must be text, not ['b']"),
        ("- {id: a, statement: b, paper: null}", "[0].paper must be text, not None"),
        ('- {id: a, statement: "\\ud83d", paper: c}', "[0].statement must be text, not '\\ud83d'"),
        ("- {id: a, statement: b, paper: c}\n- {id: a, statement: d, paper: e}", "the id 'a' stands twice"),
        ("- {id: a, statement: b, paper: c, tund: 3}", "[0]: unknown key 'tund'; did you mean 'tuned'?"),
        ("- {id: a, statement: b, paper: c, tuned: words}", "[0].tuned must be null or an object, not 'words'"),
        (
            "- {id: a, statement: b, paper: c, tuned: {cases: most, queries: []}}",
            "cases must be 'all' or 'any', not 'most'",
        ),
        ("- {id: a, statement: b, paper: c, tuned: {}}", "[0].tuned.queries is missing"),
        (ASKED.format("{experiment: trial}"), "[0].tuned.queries[0].metric is missing"),
        (ASKED.format(ASKS.replace("[dyck, random init]", "dyck")), "compare[0] must be a list of 2, not 'dyck'"),
        (ASKED.format(ASKS.replace("random init", "set, random init")), "compare[0] must be a list of 2, not ["),
        (ASKED.format(ASKS.replace("[[dyck, random init]]", "[]")), "'a' compares nothing; name pairs of cells under"),
        (ASKED.format(ASKS.replace("accuracy", "acuracy")), "metric must be 'accuracy' or 'loss', not 'acuracy'"),
        (ASKED.format(ASKS.replace(", reproduced_from: 0.4", "")), "reproduced_from is missing"),
        (ASKED.format(ASKS.replace("0.4", ".nan")), "reproduced_from must be a number, not nan"),
        (ASKED.format(ASKS.replace(", differ: []", "")), "differ is missing"),
        (ASKED.format(ASKS.replace("[]", "[stage_oen]")), "differ[0] must be 'stage_one' or 'transfer' or"),
        (ASKED.format(ASKS.replace("[]", "[], saved: curve")), "the loss tells what is saved; write metric: loss"),
        (
            ASKED.format(ASKS.replace("[]", "[], saved: runs").replace("accuracy", "loss")),
            "'dyck' has no runs on shares of the text; write saved: curve",
        ),
        (b"\xff\xfe\x00", "is no YAML"),
        (None, "No such file or directory; go to the folder of the book, or name a list"),
    ],
)
def test_broken_claims_are_one_line(book, text, said):
    book.measure("dyck", [1.0] * 6)
    book.measure("random init", [0.1] * 6)
    book.claims.unlink()
    if text is not None:
        book.claims.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        ledger(book.claims, book.results)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_whatever_a_claim_holds_is_read_or_refused(book, misshapen):
    for cell in ("dyck", "random init"):
        book.measure(cell, [1.0] * 6, metric="loss")
    asked = dict(cases="any", queries=[QUERY | dict(metric="loss", saved="curve", search_seeds=[9])])
    whole, refused = dict(id="a", statement="b", paper="c", published=asked, tuned=None), 0
    for claims in misshapen([whole]):
        book.claims.write_text(json.dumps(claims))  # which is YAML too
        try:
            json.dumps(as_json(ledger(book.claims, book.results)), allow_nan=False)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_the_words_are_of_the_claims_asked_for_in_their_order(book):
    (claim,) = yaml.safe_load(book.claims.read_text())
    claims = [claim | {"id": statement, "statement": statement} for statement in ("jumps", "stays", "falls")]
    book.claims.write_text(json.dumps(claims))  # which is YAML too
    asked, read = ("stays", "jumps"), dict(claims=book.claims, results=book.results)
    assert tuple(line.split("*")[1] for line in verdicts(*asked, **read).splitlines()) == asked
    with pytest.raises(KeyError, match="another"):  # no chapter shows an empty ledger unawares
        verdicts("another", **read)


def test_the_verdicts_are_told_in_words(book):
    book.measure("random init", [0.25] * 6)
    book.measure("dyck", [1.0] * 4)
    said = verdicts("haystack", claims=book.claims, results=book.results)
    assert said == (
        "- *It jumps*: as published **partly** "
        "(accuracy +0.75 (+0.75 to +0.75); 4 seeds, which are few, at a size for two cores); "
        "beside a tuned baseline not yet run."
    )


def test_a_saving_that_one_seed_has_is_not_said_to_be_none_in_any():
    each = Comparison("a", "b", -np.inf, -np.inf, -np.inf, 3, "laptop", "share of the text saved", 0.2, "trial", "a")
    without = replace(each, by_seed=((0, -np.inf), (1, -np.inf), (2, -np.inf)))
    assert without.told == "no share of the text saved, in any seed" and without.gain() == "none, in any seed"
    one = replace(without, by_seed=((0, -np.inf), (1, 0.07), (2, -np.inf)))
    assert one.told == "no share of the text saved, in the median" and one.gain() == "none, in the median"
