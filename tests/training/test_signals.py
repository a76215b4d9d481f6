"""SIGTERM and Ctrl-C end a run after a whole step, with a checkpoint; the handlers are those of before again."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import read
from structure_first.training import signals
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

COPY = source("identity", length=4, vocab=8)
SHAPE = Shape(vocab=COPY.vocab, context=COPY.length)
STAGE = Stage(steps=60, batch=16, warmup=5, held_out=40, evaluate_every=20)


@pytest.fixture(autouse=True)
def heeded():
    """Ctrl-C raises, even where tests that were started in the background would ignore it, as the package then does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number: int, at: int):
    def watch(step, model):
        if step == at:
            os.kill(os.getpid(), number)

    return watch


@pytest.mark.parametrize(
    ("number", "ends", "dropout"), [(signal.SIGTERM, SystemExit, 0.0), (signal.SIGINT, KeyboardInterrupt, 0.1)]
)
def test_a_signal_ends_the_step_and_the_run_goes_on_to_the_same_weights(tmp_path, number, ends, dropout):
    path, shape = tmp_path / "run.safetensors", replace(SHAPE, dropout=dropout)
    whole, stopped, fresh = (Transformer(shape, (0, 1)) for _ in range(3))
    rows, before = fit(whole, COPY, STAGE), signal.getsignal(number)
    with pytest.raises(ends) as raised:
        fit(stopped, COPY, STAGE, checkpoint=path, watch=send(number, at=20))
    if ends is SystemExit:
        assert raised.value.code == 143
    assert read(path)[1]["step"] == 21 and signal.getsignal(number) is before
    torch.rand(3)  # what was dropped does not depend on what others draw
    assert fit(fresh, COPY, STAGE, checkpoint=path) == rows
    assert all(map(torch.equal, whole.parameters(), fresh.parameters()))


def test_a_signal_that_comes_with_the_last_step_ends_the_program_all_the_same(tmp_path):
    path, model = tmp_path / "run.safetensors", Transformer(SHAPE)
    with pytest.raises(SystemExit):
        fit(model, COPY, STAGE, checkpoint=path, watch=send(signal.SIGTERM, at=STAGE.steps))
    assert read(path)[1]["step"] == STAGE.steps
    assert fit(Transformer(SHAPE), COPY, STAGE, checkpoint=path)[-1]["step"] == STAGE.steps


def test_without_a_checkpoint_ctrl_c_acts_at_once():
    steps = []

    def watch(step, model):
        steps.append(step)
        send(signal.SIGINT, at=0)(step, model)

    with pytest.raises(KeyboardInterrupt):
        fit(Transformer(SHAPE), COPY, STAGE, watch=watch)
    assert steps == [0]


def test_a_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), signals.put_off() as came:
        os.kill(os.getpid(), signal.SIGINT)
        assert came() == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_torchrun_passes_on_as_well_does_not_act_at_once(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    before = signal.getsignal(signal.SIGINT)
    with signals.put_off() as came:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert came() == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.put_off() as came:
            os.kill(os.getpid(), signal.SIGINT)
            assert came() == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_put_nothing_off():
    def run():
        with signals.put_off() as came:
            found.append((came(), signal.getsignal(signal.SIGTERM)))

    found = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(0, signal.getsignal(signal.SIGTERM))]
