"""Memory, counted: against tensors that are there, and against what a training takes."""

import json
import subprocess
import sys
from statistics import median

import pytest

from structure_first.cost.memory import activation_bytes, needed, peak, weight_count
from structure_first.data.batch import Batch
from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.compute import Compute
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream


@pytest.mark.parametrize(
    "shape",
    [
        Shape(50, 24, layers=2, heads=1, width=64),
        Shape(50, 24, layers=2, heads=4, width=16),
        Shape(50, 24, layers=1, heads=2, width=128, tied=True),
        Shape(50, 24, layers=6, heads=1, width=64),
        Shape(50, 24, layers=5, heads=4, width=16, tied=True),
    ],
)
def test_what_is_kept_is_counted_without_memory_as_with_it(shape):
    """The narrow shapes are run for real in both, and the deep ones in part; the others have tensors without memory."""
    made = source("random", vocab=50, length=25)
    alone = Batch(*(tensor.clone() for tensor in Stream(made, 3, [0], "test")(0)))  # of several drawn together
    found = activation_bytes(shape, made.length, made.window, Compute(), 3)
    assert found == peak(Transformer(shape), alone, made.window)
    assert weight_count(shape) == sum(parameter.numel() for parameter in Transformer(shape).parameters())


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_sharded_model_is_gathered_but_for_all_blocks_beyond_two(layers):
    """Each weight with its gradient, of 4 bytes each: two blocks at a time, and no more than there are."""
    made, model = source("random", vocab=50, length=25), Transformer(Shape(50, 24, layers=layers, width=32))
    parts, _ = needed(model.shape, made, Stage(warmup=0), 1, Compute(sharded=True), processes=2)
    beyond = "blocks.2", "blocks.3", "blocks.4"
    gathered = [each for name, each in model.named_parameters() if not name.startswith(beyond)]
    assert parts["gathered"] == 2 * 4 * sum(each.numel() for each in gathered)


MEASURED = """
import json, sys
from pathlib import Path
import torch
from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.loop import fit
from structure_first.training.stage import Stage

def peak():  # of this program alone: getrusage counts what started it as well, as it was at that moment
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


torch.set_num_threads(1)
name, settings, shape, stage = json.loads(sys.argv[1])
for batch in (2, stage["batch"]):  # all is loaded before it counts
    before = peak()
    made = source(name, **settings)
    fit(Transformer(Shape(**shape)), made, Stage(**stage | {"batch": batch, "held_out": min(batch, stage["held_out"])}))
print(peak() - before)
"""
WIDE = ["random", dict(vocab=50, length=129), dict(vocab=50, context=128, layers=3, heads=2, width=256)]
NARROW = ["haystack", dict(pairs=30), dict(vocab=256, context=61, layers=2, heads=4, width=16)]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("kind", "batch"), [(WIDE, 48), (NARROW, 2000)], ids=["wide", "narrow"])
def test_a_plan_says_about_what_a_training_takes(kind, batch):
    """Beyond what a training on two sequences has taken before: its weights. Of three, for a busy machine may give one
    its memory otherwise.
    """
    stage = dict(steps=2, batch=batch, warmup=0, held_out=8)
    command = [sys.executable, "-c", MEASURED, json.dumps([*kind, stage])]
    measured = median(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3))
    made, shape = source(kind[0], **kind[1]), Shape(**kind[2])
    assert (made.vocab, made.length - 1) == (shape.vocab, shape.context)
    parts, _ = needed(shape, made, Stage(**stage), batch)
    planned = parts["activations"] + parts["batches"]
    assert 0.6 < planned / measured < 1.7, (parts, measured)
