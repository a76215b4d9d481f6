"""What every test shares: rows to measure on, and hypothesis without a deadline (the first call of an array operation
is slow), fixed in CI.

And the shapes in signatures: where beartype is there, calls are held to their annotations. What users call with
anything, as `data.registry`, is left out: it says itself what is wrong.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

SHAPED = ("answers", "batch", "common", "controls", "diagnostics", "mixtures", "procedural", "retrieval")
MORE = ("training.predictions", "evidence.statistics", "analysis.attention", "analysis.sequences")
CHECKED = [f"structure_first.{module}" for module in ("model", "data.corpora.packing", *MORE)]
CHECKED += [f"structure_first.data.{module}" for module in SHAPED]

assert all(map(find_spec, CHECKED)), "a module that is to be checked is not there"
if find_spec("beartype"):
    install_import_hook(CHECKED, "beartype.beartype")

import structure_first.book  # noqa: E402, F401 - before nbformat, which is then loaded in a tenth of the time
from structure_first import cli  # noqa: E402
from structure_first.analysis import haystack as analysis  # noqa: E402
from structure_first.analysis.stored import with_factors  # noqa: E402
from structure_first.evidence.store import COLUMNS  # noqa: E402
from structure_first.experiments import additive, haystack, skills, substitutive  # noqa: E402
from structure_first.experiments.text import percent  # noqa: E402
from structure_first.runs import runner  # noqa: E402
from structure_first.runs.jobs import Job  # noqa: E402

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

LONG = (  # the files that take longest, longest first: left for the end, one would keep all cores but its own waiting
    "book/test_build.py",
    "runs/test_runner.py",
    "training/test_processes.py",
    "test_promises.py",
    "bench/test_bench.py",
    "runs/test_cluster.py",
    "test_cli_stopped.py",
    "test_readme.py",
    "training/test_loop.py",
    "test_bad_calls.py",
    "pretraining/test_two_stages.py",
    "training/test_compute.py",
    "data/test_corpora_packing.py",
    "book/test_pages.py",
    "pretraining/test_warm.py",
    "cost/test_memory.py",
    "book/test_repository.py",
    "test_examples.py",
)


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist's own order, by how many tests a file has


def pytest_collection_modifyitems(items):
    here, places = Path(__file__).parent, {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


Values = Mapping[tuple[str, int], float | Mapping[int, float]]


def measured(values: Values, metric: str = "accuracy", stage: int = 2, **other) -> pd.DataFrame:
    """Rows as a store gives them: of each cell and seed the metric at each step, or at step 100 if it is one number."""
    common = {"experiment": "trial", "scale": "laptop", "stage": stage, "metric": metric, "configuration": ""}
    common |= {"flops": 1000, "run": "a run"} | other
    lines = [
        {"cell": cell, "seed": seed, "step": step, "tokens": 10 * step, "value": value}
        for (cell, seed), curve in values.items()
        for step, value in (curve if isinstance(curve, Mapping) else {100: curve}).items()
    ]
    return pd.DataFrame(lines).assign(**common)[[*COLUMNS, "configuration"]].astype(COLUMNS)


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., pd.DataFrame]:
    return measured


@pytest.fixture
def said(monkeypatch, capsys):
    """What `structure-first` prints, and its one line on standard error where it fails."""

    def run(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["structure-first", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        assert (exit.value.code, err.count("\n")) == ((0, 0) if not err else (2, 1))
        return out, err

    return run


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], None]:
    """Wait until something holds, for two minutes at most."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.01)

    return wait


@pytest.fixture
def killed(until, request) -> Callable[[str, Path], None]:
    """Run code, to which the test's own file can be imported, and kill it as soon as it has written a file."""

    def run(code: str, written: Path) -> None:
        path = os.pathsep.join([str(request.path.parent), os.environ.get("PYTHONPATH", "")])
        child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
        until(lambda: written.exists() or child.poll() is not None)
        child.kill()
        assert child.wait() == -signal.SIGKILL

    return run


def misshapen_of(value: Any) -> Iterator[Any]:
    """Copies of what JSON holds, each without one of the things in it, or with one of another type or range there."""
    yield from (None, True, -1, 1.5, 1 << 70, float("nan"), "x", "\ud83d", [], [3], {}, {"a": 3})
    if isinstance(value, dict):
        for key, each in value.items():
            yield {name: one for name, one in value.items() if name != key}
            yield from (value | {key: other} for other in misshapen_of(each))
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in misshapen_of(each))


@pytest.fixture(scope="session")
def misshapen() -> Callable[[Any], Iterator[Any]]:
    return misshapen_of


LOSSES = {
    "code / random init": 2.0,
    "code / identity 1 %": 1.9,
    "code / identity 10 % / attention": 2.1,
    "code / identity 1 % / mlp": 1.7,
    "code / text 1 %": 1.8,
}


@pytest.fixture(scope="session")
def pinches() -> Callable[[int], pd.DataFrame]:
    """Rows of `additive`: losses that come down to their cell's from twice as much; a seed's are all 0.1 above those of
    the one before.
    """

    def rows(seeds: int = 3) -> pd.DataFrame:
        models = [(cell, seed) for cell in LOSSES for seed in range(seeds)]
        losses = {
            (cell, seed): {s: LOSSES[cell] * (2 - s / 200) + seed / 10 for s in (0, 100, 200)} for cell, seed in models
        }
        mastered = {(cell, seed): {0: 0.7} for cell, seed in models if cell != "code / random init"}
        found = pd.concat([measured(losses, "loss"), measured(mastered, "mastery")], ignore_index=True)
        return with_factors(found, additive.FORMER)

    return rows


@pytest.fixture(scope="session")
def shares() -> pd.DataFrame:
    """Rows of `substitutive`: losses that fall with the logarithm of the share; with a front as with twice the text."""
    found = []
    for text in substitutive.SHARES:
        end, flops = percent(text), int(1e15 * text)
        whole = {"random init": 2 - np.log(text), "identity 1 %": 2 - np.log(2 * text)}
        whole["identity 1 % / mlp"] = 3 - np.log(text)
        small = {"width 32 / identity 1 %": 2.0, "width 32 / random init": 2.5}
        for losses, spent in ((whole, flops), (small, flops // 10)):
            values = {(f"code / {name} / {end}", seed): loss for name, loss in losses.items() for seed in range(2)}
            found.append(measured(values, "loss", flops=spent))
    return with_factors(pd.concat(found, ignore_index=True), substitutive.FORMER)


@pytest.fixture(scope="session")
def taught() -> Callable[[int], pd.DataFrame]:
    """Rows of `skills` at steps 100 and 200: each seed ends 0.01 above the one before."""
    ends = {
        "sorting / random init": 0.5,
        "sorting / set / full": 0.3,
        "sorting / set / attention": 0.95,
        "sorting / set / permuted": 0.5,
        "sorting / shuffled set / full": 0.5,
        "sorting / shuffled set / same start": 0.5,
    }

    def rows(seeds: int = 6) -> pd.DataFrame:
        models = [(cell, seed) for cell in ends for seed in range(seeds)]
        right = {(cell, seed): {s: ends[cell] * s / 200 + seed / 100 for s in (100, 200)} for cell, seed in models}
        mastered = {
            (cell, seed): {0: 0.5 if "shuffled" in cell else 1.0} for cell, seed in models if "init" not in cell
        }
        found = pd.concat([measured(right), measured(mastered, "mastery")], ignore_index=True)
        return with_factors(found, skills.TUNED)

    return rows


@pytest.fixture(scope="session")
def ran(tmp_path_factory) -> tuple[pd.DataFrame, Path]:
    """A real run of two cells of `haystack` at smoke scale: its rows and its folder."""
    out = tmp_path_factory.mktemp("live")
    cells = ["random init", "identity attention"]
    return runner.run(haystack.EXPERIMENT, "smoke", (100, 101), out, workers=1, cells=cells), out


@pytest.fixture(scope="session")
def jobs(ran) -> list[Job]:
    """The models of that run that are looked into."""
    return analysis.jumped(haystack.EXPERIMENT, "smoke", *ran)


@pytest.fixture(scope="session")
def looked(jobs) -> analysis.HeadStudy:
    return analysis.study_heads(jobs, count=20)


@pytest.fixture(scope="session")
def two_models(looked) -> analysis.HeadStudy:
    """The same measurements under a second name as well."""
    return analysis.HeadStudy(*(pd.concat([part, part.assign(model="another")]) for part in looked))
