"""Two processes under torchrun train what one does, copied or sharded, and take over from one another."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structure_first.data.batch import Batch
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model import weights
from structure_first.model.transformer import Shape, Transformer
from structure_first.training import processes
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

COPY = source("identity", length=4, vocab=8)
SHAPE = Shape(vocab=COPY.vocab, context=COPY.length)
STAGE = Stage(steps=30, batch=15, warmup=5, clip=0.5, held_out=41, evaluate_every=10)  # shares do not come out even
LONGER = replace(STAGE, steps=400, batch=64, lr=5e-3, schedule="constant", evaluate_every=20)
LEAVING = replace(LONGER, mastery=0.6, decay_vectors=False)

CHILD = """
    import json, os, signal, sys, torch
    from pathlib import Path
    from structure_first.data.registry import source
    from structure_first.errors import UserError
    from structure_first.model import weights
    from structure_first.model.transformer import Shape, Transformer
    from structure_first.training import processes
    from structure_first.training.compute import Compute
    from structure_first.training.loop import fit
    from structure_first.training.stage import Stage

    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    copy = source("identity", length=4, vocab=8)
    result = 0
    try:
        with processes.joined(torch.device("cpu")):
            for name, case in cases.items():
                model = Transformer(Shape(copy.vocab, copy.length), (0, 1))

                def watch(step, model):
                    assert processes.is_main()
                    if step == case.get("stop"):
                        os.kill(os.getpid(), signal.SIGTERM)

                if case.get("dies") == processes.rank():
                    steps, ours = iter(range(20)), processes.all_reduce_max
                    processes.all_reduce_max = lambda *each: os._exit(9) if next(steps, None) is None else ours(*each)
                path = folder / case["checkpoint"] if "checkpoint" in case else None
                compute, stage = Compute(**case["compute"]), Stage(**case["stage"])
                try:
                    rows, status = fit(model, copy, stage, checkpoint=path, watch=watch, compute=compute), 0
                except SystemExit as stopped:
                    rows, status = [], stopped.code
                outcome = folder / f"{name}.{processes.rank()}"
                outcome.with_suffix(outcome.suffix + ".json").write_text(json.dumps([status, rows]))
                for replica in range(model.replicas):
                    weights.save(f"{outcome}.{replica}.safetensors", model, replica)
    except UserError as error:
        sys.exit(f"one line: {error}")
"""


def torchrun(folder: Path, cases: dict, interval: float = 0.1) -> subprocess.CompletedProcess:
    script = folder / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += [f"--monitor-interval={interval}"]
    return subprocess.run(
        [*launch, str(script), str(folder), json.dumps(cases)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def alone(stage: Stage = STAGE, **options) -> tuple[Transformer, list[dict]]:
    model = Transformer(SHAPE, (0, 1))
    return model, fit(model, COPY, stage, **options)


@pytest.fixture(scope="module")
def whole() -> tuple[Transformer, list[dict]]:
    return alone()


@pytest.fixture(scope="module")
def together(tmp_path_factory, stopped) -> Path:
    """Everything that two processes do here, in one launch: it takes longer than all the training."""
    folder = tmp_path_factory.mktemp("together")
    cases = {}
    for kind, compute in {"copied": {"micro_batch": 3}, "sharded": {"sharded": True, "recompute": True}}.items():
        stopped(20, folder / f"alone-{kind}.checkpoint", Transformer(SHAPE, (0, 1)), COPY, STAGE)
        common = {"compute": compute, "stage": vars(STAGE)}
        cases[kind] = common
        cases[f"{kind}, stopped"] = common | {"checkpoint": f"{kind}.checkpoint", "stop": 10}
        cases[f"{kind}, resumed"] = common | {"checkpoint": f"alone-{kind}.checkpoint"}
        larger = {"micro_batch": 16} if kind == "copied" else {}
        cases[f"{kind}, leaving"] = {"stage": vars(LEAVING), "compute": compute | larger}
        cases[f"{kind}, rounded"] = common | {"compute": compute | {"precision": "bfloat16"}}
    done = torchrun(folder, cases)
    assert done.returncode == 0, done.stderr
    return folder


def outcome(folder: Path, name: str, rank: int = 0) -> tuple[int, list[dict], Transformer]:
    status, rows = json.loads((folder / f"{name}.{rank}.json").read_text())
    return status, rows, weights.load(*(folder / f"{name}.{rank}.{replica}.safetensors" for replica in (0, 1)))


def check_same(model: Transformer, rows: list[dict], other: Transformer, others: list[dict]) -> None:
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
    assert [row | {"value": None} for row in rows] == [row | {"value": None} for row in others]
    for row, against in zip(rows, others, strict=True):
        assert row["value"] == pytest.approx(against["value"], abs=1e-5)


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_two_processes_train_what_one_does(together, kind, whole):
    _, first, model = outcome(together, kind)
    check_same(model, first, *whole)
    _, second, other = outcome(together, kind, rank=1)
    assert second == first and all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_one_process_goes_on_where_two_were_stopped(together, kind, whole):
    for rank in (0, 1):
        status, rows, _ = outcome(together, f"{kind}, stopped", rank)
        assert status == 143 and not rows, "a signal that one process gets stops both"
    check_same(*alone(checkpoint=together / f"{kind}.checkpoint"), *whole)


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_two_processes_go_on_where_one_was_stopped(together, kind, whole):
    _, rows, model = outcome(together, f"{kind}, resumed")
    check_same(model, rows, *whole)


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_in_bfloat16_the_weights_stay_whole_floats(together, kind, whole):
    _, rows, model = outcome(together, f"{kind}, rounded")
    expected, others = whole
    for row, against in zip(rows, others, strict=True):
        assert row["value"] == pytest.approx(against["value"], abs=0.03)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)
        assert not torch.equal(a, a.bfloat16().float())


def test_a_replica_leaves_in_all_processes_at_once(together):
    alone_model, alone_rows = alone(LEAVING)
    left = {row["seed"]: row["step"] for row in alone_rows}
    assert left[0] != left[1], "the seeds should master the source at different times"
    for kind in ("copied", "sharded"):
        _, rows, model = outcome(together, f"{kind}, leaving")
        assert {row["seed"]: row["step"] for row in rows} == left
        assert outcome(together, f"{kind}, leaving", rank=1)[1] == rows
        for a, b in zip(model.parameters(), alone_model.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_when_one_process_ends_the_others_say_so_and_end(tmp_path):
    endless = replace(STAGE, steps=10**7, evaluate_every=10**7)
    case = {"compute": {}, "stage": vars(endless), "dies": 1, "checkpoint": "dies.safetensors"}
    done = torchrun(tmp_path, {"dies": case}, interval=3)  # what is left of a run says why it ends, before it is ended
    assert done.returncode == 1 and "exitcode  : 9" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("one line: another process")]) == 1
    assert "File " + '"' + str(tmp_path) not in done.stderr, "no traceback"


@pytest.mark.parametrize("rank", ["1", ""])
def test_a_rank_that_torchrun_did_not_give_is_no_rank(monkeypatch, rank):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", rank)
    assert processes.is_main()


def test_the_shares_are_the_whole_and_fill_up_with_what_bears_no_loss(monkeypatch):
    batch = Batch(torch.arange(14).view(1, 7, 2), torch.ones(1, 7, 2, dtype=torch.bool))
    monkeypatch.setattr(processes, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(processes.share(batch))
    assert {share.tokens.shape for share in shares} == {(1, 3, 2)}
    assert sorted(token for share in shares for token in share.tokens[share.loss_mask].tolist()) == list(range(14))


def test_a_width_that_does_not_divide_says_so(monkeypatch):
    monkeypatch.setattr(processes, "world_size", lambda: 3)
    with pytest.raises(UserError, match="width 16 is not a multiple of 3 processes"):
        processes.sharded(Transformer(SHAPE), torch.device("cpu"), None)
