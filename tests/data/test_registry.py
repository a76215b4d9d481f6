"""Names, settings, and what is said about wrong ones."""

import pytest
import torch

from structure_first.data import controls
from structure_first.data.registry import CONTROLS, DIAGNOSTICS, PROCEDURAL, RULES, Rule, describe, source
from structure_first.errors import UserError
from structure_first.seeding import generator

OURS = ["identity", "reverse", "sort", "set", "union", "delete", "stack", "dyck", "dyck_shuffle", "eca"]


def test_the_names():
    assert set(OURS) <= set(PROCEDURAL)
    assert {"haystack", "addition", "reversed_addition", "multiplication", "sorting"} <= set(DIAGNOSTICS)
    assert {"random"} <= set(CONTROLS)


@pytest.mark.parametrize("name", [*RULES, "shuffled:union"])
def test_a_source_says_what_it_is(name):
    made = source(name)
    assert made.name == name and made.teaches and "\n" not in made.teaches
    assert describe(name).endswith(".") and "\n" not in describe(name)
    batch = made.draw(3, generator("cpu", 0))
    assert batch.tokens.shape == (3, made.length) and batch.tokens.is_contiguous()


def test_a_change_is_told_of_the_whole_mixture():
    assert describe("shuffled:set+dyck").startswith(f"{describe('set+dyck')} Then shuffled: ")


def test_the_papers_settings_are_the_defaults():
    assert dict(source("dyck").settings) == {"length": 2048, "k": 64, "p": 0.49}
    assert dict(source("dyck_shuffle").settings) == {"length": 2048, "k": 64, "p": 0.5, "depth": 16}
    assert dict(source("eca").settings)["rule"] == 110
    for name in ("identity", "reverse", "sort", "set", "union", "delete", "stack"):
        own = {"delete": {"absent": 0}, "stack": {"forced": 2}}.get(name, {})
        assert dict(source(name).settings) == {"length": 64, "vocab": 100} | own
    assert source("haystack").settings["pairs"] == 30
    sums = [source(name).settings["digits"] for name in ("addition", "reversed_addition", "multiplication")]
    assert sums == [5, 10, 5]


def test_a_setting_without_limits_is_a_whole_number_from_0_or_any_number(monkeypatch):
    def draw(count, generator, *, period=2, height=0.5, depth=3):
        return controls.random(count, generator, length=period, vocab=2)

    limited = Rule(draw, "nothing", lambda **_: 2, limits={"depth": (3, 4)})
    monkeypatch.setitem(RULES, "new", limited)
    assert dict(source("new", height=-7.5).settings) == {"period": 2, "height": -7.5, "depth": 3}
    for chosen, said in (({"period": -1}, "from 0 to 1,048,576"), ({"period": 0.5}, "whole"), ({"depth": 5}, "to 4")):
        with pytest.raises(UserError, match=said):
            source("new", **chosen)


def test_another_length():
    dyck = source("dyck", length=128, k=16, p=0.4, depth=8)
    assert dyck.at(None) is dyck and dyck.at(128) is dyck
    assert dict(dyck.at(32).settings) == {"length": 32, "k": 16, "p": 0.4, "depth": 8} and dyck.at(32).length == 32
    assert source("stack").at(20).window == 20
    haystack = source("haystack")
    assert haystack.at(None) is haystack
    with pytest.raises(UserError, match="unknown setting of haystack 'length'"):
        haystack.at(10)


def test_only_closers_are_determined():
    tokens, _ = source("dyck", k=4, length=16).draw(5, generator("cpu", 0))
    assert torch.equal(source("dyck", k=4, length=16).determined(tokens), tokens >= 4)
    assert {name for name in OURS if source(name).determined} == {"dyck", "dyck_shuffle"}


WRONG = [
    ("dick", {}, "unknown source 'dick'; did you mean 'dyck'?"),
    ("shuffled:dick", {}, "unknown source 'dick'; did you mean 'dyck'?"),
    ("shufled:dyck", {}, "unknown control 'shufled'; did you mean 'shuffled'?"),
    ("", {}, "unknown source ''; known: "),
    ("dyck", {"lenght": 8}, "unknown setting of dyck 'lenght'; did you mean 'length'?"),
    ("identity", {"k": 8}, "unknown setting of identity 'k'; known: length, vocab"),
    ("dyck", {"length": 7}, "dyck: length must be even, not 7"),
    ("shuffled:dyck", {"length": 7}, "dyck: length must be even, not 7"),
    ("dyck_shuffle", {"length": 2047}, "dyck_shuffle: length must be even, not 2047"),
    ("union", {"length": 5}, "union: length must be even, not 5"),
    ("dyck", {"length": 0}, "dyck: length must be from 1 to 65,536, not 0"),
    ("dyck", {"k": 0}, "dyck: k must be from 1 to 65,536, not 0"),
    ("dyck", {"p": 1.5}, "dyck: p must be from 0 to 1, not 1.5"),
    ("dyck", {"p": float("nan")}, "dyck: p must be from 0 to 1, not nan"),
    ("dyck", {"p": "half"}, "dyck: p must be a number from 0 to 1, not 'half'"),
    ("dyck", {"depth": 0}, "dyck: depth must be from 1 to 32,767, not 0"),
    ("dyck", {"k": 2.5}, "dyck: k must be a whole number from 1 to 65,536, not 2.5"),
    ("dyck", {"k": True}, "dyck: k must be a whole number from 1 to 65,536, not True"),
    ("identity", {"length": -1}, "identity: length must be from 1 to 65,536, not -1"),
    ("identity", {"length": 10**9}, "identity: length must be from 1 to 65,536, not 1,000,000,000"),
    ("identity", {"vocab": 1}, "identity: vocab must be from 2 to 1,048,576, not 1"),
    ("delete", {"length": 1}, "delete: length must be 2 or more, not 1"),
    ("random", {"length": 1}, "random: length must be 2 or more, not 1"),
    ("stack", {"vocab": 63}, "stack: 64 operations can stack 63 different tokens but vocab 63 has 62; vocab must"),
    ("stack", {"length": 200}, "stack: 200 operations can stack 199 different tokens but vocab 100 has 99; "),
    ("eca", {"rule": 256}, "eca: rule must be from 0 to 255, not 256"),
    ("eca", {"length": 100}, "eca: length must be a multiple of width 16, 32 or more, not 100"),
    ("eca", {"length": 16}, "eca: length must be a multiple of width 16, 32 or more, not 16"),
    ("haystack", {"pairs": 31}, "haystack: pairs must be from 1 to 30, not 31"),
    ("haystack", {"pairs": -3}, "haystack: pairs must be from 1 to 30, not -3"),
    ("addition", {"digits": 0}, "addition: digits must be from 1 to 1,000, not 0"),
]


@pytest.mark.parametrize(("name", "chosen", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(name, chosen, message):
    with pytest.raises(UserError) as raised:
        source(name, **chosen)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_the_smallest_alphabet_of_a_stack(length):
    smallest = next(v for v in range(2, 20) if legal("stack", length=length, vocab=v))
    assert legal("stack", length=length, vocab=50_000)
    message = fails("stack", length=length, vocab=smallest - 1) if smallest > 2 else ""
    if message:
        said = int(message.split("vocab must be ")[1].split()[0])
        longest = int(message.split("or length ")[1].split()[0])
        assert said == smallest and legal("stack", length=longest, vocab=smallest - 1)


def legal(name, **chosen):
    return not fails(name, **chosen)


def fails(name, **chosen):
    try:
        source(name, **chosen)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("count", [0, -5])
def test_a_draw_has_sequences(count):
    with pytest.raises(UserError, match=f"the number of sequences must be 1 or more, not {count}"):
        source("set").draw(count, generator("cpu", 0))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"context": 8}, "code/bytes: tokens must be a whole number from 1 to 10,000,000,000,000, not None"),
        ({"context": 8.0, "tokens": 100}, "code/bytes: context must be a whole number from 1 to 65,535, not 8.0"),
        ({"context": True, "tokens": 100}, "code/bytes: context must be a whole number from 1 to 65,535, not True"),
        ({"contxt": 8, "tokens": 100}, "unknown setting of code/bytes 'contxt'; did you mean 'context'?"),
    ],
)
def test_the_settings_of_a_corpus_are_checked_before_it_is_packed(settings, line):
    with pytest.raises(UserError) as caught:
        source("code/bytes", **settings)
    assert str(caught.value) == line
