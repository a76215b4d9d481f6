"""Jobs on a Dask cluster: a worker trains one at a time; what it leaves lies in a results folder that all share."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker, get_worker
from distributed import Future as DaskFuture
from distributed.comm import connect

from structure_first.errors import UserError
from structure_first.model.transformer import Transformer
from structure_first.runs.execution import execute_or_split
from structure_first.runs.jobs import Job
from structure_first.runs.planning import Plan, plan
from structure_first.runs.runner import Outcome, Pool, say
from structure_first.versions import VERSIONS

PATIENCE = 5  # seconds within which a scheduler answers


@contextmanager
def opened_at(address: str, folder: Path) -> Iterator[tuple[Pool, Callable[..., Plan]]]:
    """The cluster's workers as a pool, and `plan` as one of them would have it; `folder` holds the results.

    A job whose worker dies is run again by another, from its checkpoint. Raises `UserError` where no scheduler answers,
    on workers that cannot do it, and on a job that kills one worker after another.
    """
    client, number = connected(address), count(1)

    def submit(job: Job) -> "Future[list[Outcome]]":
        key = f"{job.name} ({client.id}, {next(number)})"
        remote = client.submit(_on_worker, folder, VERSIONS, _train, job, key=key)
        local: Future[list[Outcome]] = Future()
        remote.add_done_callback(partial(_hand_over, local))
        return local

    def planned(*given: Any) -> Plan:
        hosts = by_host(client)
        if not hosts:
            say(f"the cluster at {address} has no workers yet; the run begins with the first")
            client.wait_for_workers(1)
            hosts = by_host(client)
        counted = hosts.total(), max(hosts.values())
        return client.submit(_on_worker, folder, VERSIONS, plan, *given, *counted, pure=False).result()

    try:
        yield Pool(submit, lambda: max(1, by_host(client).total())), planned
    except KilledWorker as error:
        name, times = str(error.task).rpartition(" (")[0] or "the plan", error.allowed_failures + 1
        problem = f"{name} killed {times} workers, one after another"
        raise UserError(f"{problem}; their logs say why (too little memory?); run again to go on") from None
    except CancelledError:
        raise UserError(f"the cluster at {address} went away; run again: jobs go on from their checkpoints") from None
    finally:
        with suppress(Exception):  # whatever has become of the scheduler
            client.close(timeout=PATIENCE)  # a job that still trains stops at its next evaluation


def connected(address: str) -> Client:
    """A client of the scheduler there; raises `UserError` where none answers."""

    async def greet() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=PATIENCE - 1), PATIENCE)
        await comm.close()

    try:
        asyncio.run(greet())  # a client would wait for ever on a server that says nothing
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # of many kinds, from a malformed address to a server of something else
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = "name the address that `dask scheduler` printed, such as tcp://10.0.0.1:8786"
        raise UserError(f"--cluster {address}: no Dask scheduler answers there ({reason}); {advice}") from None


def _hand_over(local: Future, remote: DaskFuture) -> None:
    """Take a result from the cluster, which would make it again if the worker that holds it died."""
    try:
        local.set_result(remote.result())
    except BaseException as error:
        local.set_exception(error)
    remote.release()


def by_host(client: Client) -> Counter[str]:
    """How many workers each machine has."""
    return Counter(worker["host"] for worker in client.scheduler_info()["workers"].values())


def _on_worker(folder: Path, versions: dict[str, int], work: Callable, *given: Any) -> Any:
    """In a worker that can do it; raises `UserError` in one that cannot."""
    worker = get_worker()
    if worker.state.nthreads != 1:
        many = f"worker {worker.address} has {worker.state.nthreads} threads, and a job is alone in its process"
        raise UserError(f"{many}; start workers with --nthreads 1, one for each core or GPU")
    if not folder.is_dir():
        raise UserError(f"worker {worker.address} sees no folder {folder}; name an --out that all workers share")
    if versions != VERSIONS:
        raise UserError(f"worker {worker.address} runs another version of Structure First; install the same on all")
    return work(*given)


def _train(job: Job) -> list[Outcome]:
    """Within a worker's task: the job's outcome; one that is no longer wanted ends at its next evaluation."""
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]

    def watch(step: int, model: Transformer) -> None:
        if task.state == "cancelled":
            raise CancelledError

    return execute_or_split(job, say, watch)
