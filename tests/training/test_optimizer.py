"""The optimizer's groups, and the clip."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from structure_first.data.registry import source
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.loop import Run, fit
from structure_first.training.optimizer import clip
from structure_first.training.predictions import predict
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

COPY = source("identity", length=4, vocab=8)
SHAPE = Shape(vocab=COPY.vocab, context=COPY.length)
STAGE = Stage(
    steps=8, batch=16, lr=1e-2, warmup=2, weight_decay=3.0, clip=None, decay_vectors=False, schedule="constant"
)


def test_an_update_does_not_load_the_compiler():
    """Which takes as long as PyTorch itself."""
    code = """
        import sys
        from structure_first.data.registry import source
        from structure_first.model.transformer import Shape, Transformer
        from structure_first.training.loop import fit
        from structure_first.training.stage import Stage
        copy = source("identity", length=4, vocab=8)
        stage = Stage(steps=1, batch=2, warmup=0, held_out=2)
        fit(Transformer(Shape(copy.vocab, copy.length)), copy, stage, random_key="x")
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(code)], check=True)


def test_the_clip_is_per_replica():
    large, small = torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 5, requires_grad=True)
    large.grad, small.grad = torch.ones(2, 3, 4), torch.ones(2, 5)
    large.grad[1] *= 1e-3
    small.grad[1] *= 1e-3
    clip([large, small], 1.0)
    norms = (large.grad.flatten(1).square().sum(1) + small.grad.square().sum(1)).sqrt()
    assert norms.tolist() == pytest.approx([1.0, 1e-3 * 17**0.5], rel=1e-4)
    alone = torch.zeros(1, 3, 4, requires_grad=True)
    for size, norm in ((2.0, 1.0), (0.1, 0.1 * 12**0.5)):
        alone.grad = torch.full_like(alone, size)
        clip([alone], 1.0)
        assert alone.grad.norm().item() == pytest.approx(norm, rel=1e-4)


def vectors(model: Transformer) -> list[torch.Tensor]:
    return [each for name, each in model.named_parameters() if name.endswith(("bias", "scale", "shift"))]


def norms(model: Transformer) -> list[torch.nn.Module]:
    return [module for module in model.modules() if hasattr(module, "scale")]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_vectors_that_do_not_decay_are_adamws_second_group(seeds):
    mine, theirs = Transformer(SHAPE, seeds), Transformer(SHAPE, seeds)
    plain = vectors(theirs)
    rest = [each for each in theirs.parameters() if not any(each is one for one in plain)]
    assert len(plain) == 2 * (4 + 5) + 2 and len(rest) == 2 * 5 + 3
    groups = [{"params": rest, "weight_decay": STAGE.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    run, stream = Run(mine, COPY, STAGE, "stage"), Stream(COPY, STAGE.batch, seeds, "stage")
    for step in range(STAGE.steps):
        batch = stream(step)
        run.update(batch, COPY)
        for group in optimizer.param_groups:
            group["lr"] = STAGE.lr_at(step)
        optimizer.zero_grad()
        found = predict(theirs, batch, COPY.window)
        (found.nats() / found.mask.sum((1, 2))).sum().backward()
        optimizer.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    decayed = Transformer(SHAPE, seeds)
    fit(decayed, COPY, replace(STAGE, decay_vectors=True), random_key="stage")
    assert max(each.scale.max() for each in norms(decayed)) < 0.9 < min(each.scale.min() for each in norms(mine))


def test_the_clip_is_over_both_groups():
    model, small = Transformer(SHAPE, (0, 1)), replace(STAGE, clip=1e-3)
    run = Run(model, COPY, small, "stage")
    run.update(Stream(COPY, STAGE.batch, (0, 1), "stage")(0), COPY)
    norm = torch.stack([each.grad.flatten(1).norm(dim=1) for each in model.parameters()]).norm(dim=0)
    torch.testing.assert_close(norm, torch.full((2,), 1e-3), rtol=1e-4, atol=0)


def test_a_stopped_run_whose_vectors_do_not_decay_goes_on_to_the_same_weights(tmp_path):
    """Also after a replica has left: its part of each average goes with it, in whichever group it is."""
    slow = replace(STAGE, steps=600, lr=5e-3, weight_decay=0.1, clip=1.0)
    stage = replace(slow, held_out=40, evaluate_every=20, mastery=0.7)
    whole, stopped, again = (Transformer(SHAPE, range(4)) for _ in range(3))
    rows = fit(whole, COPY, stage)
    left = sorted({row["seed"]: row["step"] for row in rows}.values())
    assert left[0] < left[-1]

    class Stop(Exception):
        pass

    def watch(step, model):
        if step > left[0]:
            raise Stop

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        fit(stopped, COPY, stage, checkpoint=path, checkpoint_seconds=0, watch=watch)
    assert fit(again, COPY, stage, checkpoint=path) == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
