"""A whole warm-up of a GPT-2 of `transformers`, saved at its end: ours against that of pptrain 0.3.0.

Both draw their data, train the same model for as many updates of as many sequences of at most 64 tokens in float32 with
as many threads, and write it; both are called as their documentation has it. The rule is *set*: ours draws a batch by
array operations as it is needed, the peer all sequences before, one at a time, as text; and ours first says what it
will take, for which it times an update.
"""

import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, TimedSteps
from structure_first.data.registry import source
from structure_first.machine import cores
from structure_first.pretraining.warm import warm_up

TARGET = 1.0
LETTERS, MOST = 28, 64  # that a sequence holds before its separator, and tokens of one
SIZE = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": MOST}


def ours(batch: int, updates: int) -> TimedSteps:
    """Whole warm-ups by the package."""
    theirs = harness.quiet_transformers()
    rule = source("set", length=LETTERS, vocab=LETTERS)

    def step() -> None:
        model = theirs.GPT2LMHeadModel(theirs.GPT2Config(**SIZE))
        warm_up(model, rule, say=lambda _: None, steps=updates, batch=batch, held_out=batch, mastery=None)
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder)

    return harness.by_steps(quietly(step))


def peers(batch: int, updates: int) -> TimedSteps:
    """Whole warm-ups by pptrain."""
    theirs = harness.quiet_transformers()
    from pptrain import PrePreTrainer, RunConfig, create_task
    from pptrain.integrations import HFCausalLMAdapter, HFModelConfig

    drawn = dict(tasks=("set",), max_symbol_length=LETTERS, max_length=MOST)

    def step() -> None:
        with TemporaryDirectory() as folder:
            theirs.GPT2Config(**SIZE).save_pretrained(folder)
            counts = dict(sequence_count=updates * batch, eval_sequence_count=batch)
            often = dict(logging_steps=updates, save_steps=updates, eval_steps=updates)
            PrePreTrainer(
                task=create_task("procedural", drawn | counts),
                model_adapter=HFCausalLMAdapter(HFModelConfig(folder)),
                run_config=RunConfig(
                    str(Path(folder) / "run"), max_steps=updates, per_device_train_batch_size=batch, **often
                ),
            ).fit()

    return harness.by_steps(quietly(step))


def quietly(step: Callable[[], None]) -> Callable[[], None]:
    """The same without what it prints: the contenders' bars and losses would fill the terminal."""

    def quiet() -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            step()

    return quiet


def report(sizes: Sizes, ratios: Ratios) -> None:
    if find_spec("pptrain") is None:
        print("\nA whole warm-up is not measured: its peer is not installed (pip install pptrain==0.3.0)")
        return
    batch, updates = sizes.warm
    contenders = {make.__name__: Contender(partial(make, updates=updates)) for make in (ours, peers)}
    (rates,) = harness.compare(contenders, [(batch, cores())], sizes)
    mine, theirs = ([60 * rate for rate in each] for each in rates.values())
    line = (f"{updates}", *ratios.judged(f"a warm-up of {updates} updates", mine, theirs, TARGET))
    head = ("updates", "ours", "pptrain", "target", "met", "ratio, median (range)")
    harness.table(f"Whole warm-ups a minute, batch {batch}, 2 layers x 64, threads: {cores()}", head, [line])
