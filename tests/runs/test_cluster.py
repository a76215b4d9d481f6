"""Jobs on a Dask cluster of two workers: the rows are those of this machine's processes, whoever is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from structure_first.errors import UserError
from structure_first.model.transfer import Transfer
from structure_first.runs.recipe import Experiment, Phase, Recipe
from structure_first.runs.runner import run
from structure_first.training.stage import Stage

distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install -e .[cluster]")
cluster = pytest.importorskip("structure_first.runs.cluster")

# In every worker: checkpoints ten times a second, a line in a file for each start, and death where a job is called so.
PRELOAD = """
import os, signal
from structure_first.runs import execution
from structure_first.training.loop import fit
def watched(model, *rest, label, checkpoint, **settings):
    with open({log!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\t{{label}}\\t{{checkpoint.exists()}}\\t{{checkpoint}}\\n")
    if label.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(model, *rest, label=label, checkpoint=checkpoint, checkpoint_seconds=0.1, **settings)
execution.fit = watched
"""
STAGE = Stage(steps=20, batch=8, warmup=2, held_out=16, evaluate_every=10)
COPY = Phase("identity", STAGE, {"length": 3, "vocab": 5}, tied=True)
SECOND = Phase("haystack", STAGE, {"pairs": 2})
CELLS = {
    "random init": Recipe(None, None, SECOND),
    "copied": Recipe(COPY, Transfer(), SECOND),
    "slow": Recipe(None, None, SECOND.at(steps=300)),
}
DEADLY = {"deadly": Recipe(None, None, SECOND.at(lr=0.1)), "random init": CELLS["random init"]}


def experiment(cells: dict[str, Recipe]) -> Experiment:
    return Experiment("tiny", "Does it run?", lambda scale: cells, {})


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cluster") / "starts"


@pytest.fixture(scope="module")
def address(log):
    """The scheduler of two workers, each a process of its own that is begun anew when it dies."""
    import dask

    preload = log.with_name("preload.py")
    preload.write_text(PRELOAD.format(log=str(log)))
    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.worker.preload": [str(preload)]}
    ways = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50)
    with dask.config.set(settings), distributed.LocalCluster(**ways) as pair:
        yield pair.scheduler_address


def started(log: Path) -> list[list[str]]:
    return [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []


def test_a_killed_worker_costs_nothing_and_changes_nothing(tmp_path, address, log, until):
    def kill() -> None:
        def slow() -> list[list[str]]:
            return [line for line in started(log) if line[1] == "slow" and Path(line[3]).exists()]

        until(slow)
        os.kill(int(slow()[0][0]), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    there = run(experiment(CELLS), "smoke", range(2), tmp_path / "there", cluster=address)
    killer.join()
    here = run(experiment(CELLS), "smoke", range(2), tmp_path / "here", workers=1)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    again = [line for line in started(log) if line[1] == "slow" and line[2] == "True"]
    assert again, "the killed job went on from its checkpoint"
    assert not list(tmp_path.glob("there/tiny/checkpoints/*.safetensors"))
    before = len(started(log))
    run(experiment(CELLS), "smoke", range(2), tmp_path / "there", cluster=address)
    assert len(started(log)) == before, "nothing was missing"


def test_a_folder_that_a_worker_does_not_see_is_said(tmp_path, address):
    with (
        pytest.raises(
            UserError, match=r"worker tcp://.* sees no folder .*nowhere; name an --out that all workers share"
        ),
        cluster.opened_at(address, tmp_path / "nowhere") as (_, planned),
    ):
        planned()


def test_a_worker_of_many_threads_is_refused(tmp_path):
    ways = dict(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0", silence_logs=50)
    with (
        distributed.LocalCluster(**ways) as crowded,
        pytest.raises(UserError, match=r"has 3 threads.*start workers with --nthreads 1"),
    ):
        run(experiment(CELLS), "smoke", range(1), tmp_path, cluster=crowded.scheduler_address)


def test_where_no_scheduler_answers_one_line_says_so_within_ten_seconds(monkeypatch):
    assert cluster.PATIENCE <= 5
    monkeypatch.setattr(cluster, "PATIENCE", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"tcp://127.0.0.1:{silent.getsockname()[1]}", "tcp://127.0.0.1:9", "nonsense://a:1", "a"):
            began = time.monotonic()
            with pytest.raises(
                UserError, match=f"^--cluster {address}: no Dask scheduler answers there [(].+[)]; name "
            ):
                cluster.connected(address)
            assert time.monotonic() - began < 3  # of a patience of 1.5, as ten seconds of five


def test_the_command_says_it_in_one_line_too(tmp_path):
    words = ["run", "haystack", "--scale", "smoke", "--out", str(tmp_path), "--cluster", "tcp://127.0.0.1:9"]
    code = (
        "from structure_first import cli; from structure_first.runs import cluster; cluster.PATIENCE = 1.5; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("structure-first: --cluster tcp://127.0.0.1:9: no Dask scheduler")


def test_a_job_that_kills_its_workers_is_named(tmp_path, address):  # the last: workers are few after it
    with pytest.raises(UserError, match=r"^deadly killed 2 workers, one after another; .*; run again to go on$"):
        run(experiment(DEADLY), "smoke", range(1), tmp_path, cluster=address)
