"""DeepMind-Math: every module answers, and a question depends on its split, number and seed alone."""

import os
import random
import re
import subprocess
import sys
from collections import namedtuple
from fractions import Fraction
from functools import partial
from itertools import islice

import numpy as np
import pytest

from structure_first.data.corpora import mathematics
from structure_first.data.corpora.mathematics import BLOCK, LEVELS, modules, question, questions
from structure_first.errors import UserError

Problem = namedtuple("Problem", "question answer")
SLOW = "probability__swr_p_level_set_more_samples"  # seconds a question


@pytest.mark.parametrize(("split", "count"), [*((level, 56) for level in LEVELS), ("interpolate", 56)])
@pytest.mark.filterwarnings("error")  # what warns now is gone in a later Python
def test_every_module_asks_and_answers(split, count):
    names = list(modules(split))
    assert len(names) == count and names == sorted(names) and "algebra__linear_1d" in names
    for number in range(count):
        check(question(split, number, seed=1))


def test_the_extrapolation_modules():
    names = list(modules("extrapolate"))
    assert len(names) == 15 and SLOW in names
    for number, name in enumerate(names):
        if name != SLOW:
            check(question("extrapolate", number, seed=1))


def check(text: str) -> None:
    """Two lines within the published lengths, of printable characters, and no trace of numpy 2's longer names."""
    asked, answer = text.split("\n")
    assert 0 < len(asked) <= 160 and 0 < len(answer) <= 30
    assert text.isascii() and (asked + answer).isprintable() and "np." not in text


def test_sums_are_right():
    names, seen = list(modules("train")), 0
    for turn in range(60):
        asked, answer = question("train", names.index("arithmetic__add_or_sub") + len(names) * turn, 0).split("\n")
        if sum := re.search(r"([-.\d]+) ([-+]) ([-.\d]+)[?.]?$", asked):
            left, right = Fraction(sum[1]), Fraction(sum[3].rstrip("."))
            assert Fraction(answer) == (left + right if sum[2] == "+" else left - right)
            seen += 1
    assert seen > 5


def test_training_goes_through_the_modules_and_their_levels_in_turn(monkeypatch):
    def two(split):
        return {name: partial(Problem, split, name) for name in ("a", "b")}

    monkeypatch.setattr(mathematics, "modules", two)
    turns = [f"{level}\n{name}" for level in LEVELS for name in "ab"]
    assert [question("train", number, 0) for number in range(12)] == turns * 2
    assert question("extrapolate", 3, 0) == "extrapolate\nb"


def test_what_is_too_long_is_asked_again(monkeypatch):
    given = iter([Problem("q" * 161, "a"), Problem("q", "a" * 31), Problem("q" * 160, "a" * 30)])
    monkeypatch.setattr(mathematics, "modules", lambda split: {"only": lambda: next(given)})
    assert question("interpolate", 0, 0) == "q" * 160 + "\n" + "a" * 30


def test_a_question_depends_on_its_split_number_and_seed_alone():
    first = [question("train", number, 5) for number in range(30)]
    random.seed(1)
    np.random.seed(1)
    outer = random.getstate(), np.random.get_state()[1].tolist()
    assert [question("train", number, 5) for number in reversed(range(30))] == first[::-1]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outer
    assert sum(question("train", number, 6) != first[number] for number in range(30)) == 30
    code = "from structure_first.data.corpora.mathematics import question\n"
    code += "print('\\n'.join(question('train', number, 5) for number in range(30)))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "\n".join(first) + "\n"


def test_workers_make_the_same_questions_from_any_start_on():
    serial = [question("train", number, 3) for number in range(2 * BLOCK + 5)]
    assert list(islice(questions("train", seed=3, workers=2), len(serial))) == serial
    late = questions("train", seed=3, start=BLOCK + 7, workers=1)
    assert list(islice(late, 20)) == serial[BLOCK + 7 :][:20]
    late.close()


def test_a_process_that_ends_early_is_one_line(monkeypatch):
    monkeypatch.setattr(mathematics.sys, "executable", "true")
    with pytest.raises(UserError, match=r"makes math:train has ended in block 2 .*; give the same command again"):
        next(questions("train", start=2 * BLOCK, workers=1))


def test_no_code_of_the_current_folder_runs(tmp_path, monkeypatch):
    for name in ("random", "sympy", "numpy", "structure_first"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    made = questions("train-easy", seed=3, workers=1)
    assert next(made) == question("train-easy", 0, 3) and not (tmp_path / "ran").exists()
    made.close()


def test_what_cannot_be_asked(monkeypatch):
    with pytest.raises(UserError, match=r"unknown part of math 'extrapolat'; did you mean 'extrapolate'\?"):
        questions("extrapolat")
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install mathematics-dataset==1\.0\.1"):
        questions("train")
