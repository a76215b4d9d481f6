"""The loop: it learns, it stops, and a killed run ends with the weights of one that was never killed."""

import os
import signal
from dataclasses import replace
from itertools import combinations
from math import inf, isfinite, nan
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structure_first.data.batch import Batch
from structure_first.data.registry import RULES, source
from structure_first.errors import UserError
from structure_first.model import kernels
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import read, save, write
from structure_first.training import loop, predictions
from structure_first.training.compute import Compute
from structure_first.training.devices import one_thread
from structure_first.training.loop import fit
from structure_first.training.predictions import evaluate, short_and_long
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

COPY = source("identity", length=4, vocab=8)
SHAPE = Shape(vocab=COPY.vocab, context=COPY.length)
STAGE = Stage(steps=60, batch=16, warmup=5, held_out=40, evaluate_every=20)


def weights(model: Transformer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_learns_to_copy_and_stops_each_replica_when_it_has():
    stage = Stage(steps=3000, batch=64, lr=5e-3, warmup=50, schedule="constant", held_out=100, mastery=0.95)
    model = Transformer(SHAPE, (0, 1))
    accuracy = [row for row in fit(model, COPY, replace(stage, evaluate_every=50)) if row["metric"] == "accuracy"]
    for seed in (0, 1):
        values = [row["value"] for row in accuracy if row["seed"] == seed]
        assert values[0] < 0.4 and values[-1] >= 0.95 and max(values[:-1]) < 0.95
    assert max(row["step"] for row in accuracy) < 3000


def test_a_replica_trains_the_same_alone_and_among_others():
    together, alone = Transformer(SHAPE, (0, 1)), Transformer(SHAPE, (1,))
    fit(together, COPY, STAGE)
    fit(alone, COPY, STAGE)
    for a, b in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a[1], b[0], atol=1e-4, rtol=1e-3)


def test_a_replica_gone_to_nan_says_so_and_spoils_no_other():
    healthy, broken = Transformer(SHAPE, (0, 1)), Transformer(SHAPE, (0, 1))

    def spoil(step, model):
        if step == 20:
            with torch.no_grad():
                model.position[0, 0, 0] = torch.nan

    fit(healthy, COPY, STAGE)
    rows = fit(broken, COPY, STAGE, watch=spoil)
    last = [row for row in rows if row["seed"] == 0][-2:]
    assert {row["metric"] for row in last} == {"loss", "accuracy"}
    assert all(row["step"] == 40 and row["value"] != row["value"] for row in last)
    assert max(row["step"] for row in rows if row["seed"] == 1) == STAGE.steps
    for a, b in zip(healthy.parameters(), broken.parameters(), strict=True):
        torch.testing.assert_close(a[1], b[1], atol=1e-4, rtol=1e-3)


def test_a_replica_that_leaves_keeps_its_weights_and_a_stopped_run_knows_who_is_left(tmp_path, stopped):
    stage = replace(STAGE, steps=600, lr=5e-3, schedule="constant", mastery=0.7)
    whole, snapshots = Transformer(SHAPE, range(4)), {}

    def keep(step, model):
        snapshots[step] = weights(model)

    rows = fit(whole, COPY, stage, watch=keep)
    left = {row["seed"]: row["step"] for row in rows}
    assert len(set(left.values())) > 1, "the seeds should master the source at different times"
    for seed, step in left.items():
        assert same([each[seed] for each in snapshots[step]], [each[seed] for each in weights(whole)])

    path = tmp_path / "run.safetensors"
    stopped(min(left.values()) + 1, path, Transformer(SHAPE, range(4)), COPY, stage)
    fresh = Transformer(SHAPE, range(4))
    assert fit(fresh, COPY, stage, checkpoint=path) == rows
    assert same(weights(whole), weights(fresh))


def test_a_run_stopped_before_its_last_evaluation_knows_who_is_left(tmp_path, stopped):
    stage = replace(STAGE, lr=5e-3, schedule="constant", evaluate_every=10, mastery=0.2)
    left = {row["seed"]: row["step"] for row in fit(Transformer(SHAPE, (0, 2)), COPY, stage)}
    short, path = replace(stage, steps=min(left.values()) + 1), tmp_path / "run.safetensors"
    assert short.steps < max(left.values()), "one should have left, and another train on"
    stopped(short.steps, path, Transformer(SHAPE, (0, 2)), COPY, short)
    rows = fit(Transformer(SHAPE, (0, 2)), COPY, short)
    assert fit(Transformer(SHAPE, (0, 2)), COPY, short, checkpoint=path) == rows


@pytest.mark.parametrize(("most", "calls"), [(1 << 26, 1), (5 * COPY.window * COPY.vocab, 8), (1, 40)])
def test_an_evaluation_holds_so_many_logits_at_once_and_measures_the_same(monkeypatch, most, calls):
    model, sizes = Transformer(SHAPE, (0, 1)), []
    batch = Stream(COPY, 40, (0, 1), "held out")(0)
    expected = evaluate(model, batch, COPY, Compute(micro_batch=40))
    monkeypatch.setattr(predictions, "LOGITS_AT_ONCE", most)
    model.register_forward_hook(lambda module, given, logits: sizes.append(logits[0].numel()))
    found = evaluate(model, batch, COPY)
    assert len(sizes) == calls and max(sizes) <= max(most, COPY.window * COPY.vocab)
    for metric, values in expected.items():
        torch.testing.assert_close(found[metric], values)


@pytest.mark.parametrize(
    "of", [replace(COPY, determined=lambda tokens: tokens % 2 == 0), source("dyck_shuffle", length=16, k=4)]
)
def test_accuracy_counts_what_the_tokens_before_determine(of):
    model = Transformer(Shape(of.vocab, of.length - 1), (0, 1))
    batch = Stream(of, 200, model.seeds, "held out")(0)
    graded = (batch.loss_mask & of.determined(batch.tokens))[..., 1:]
    assert 0 < graded.sum() < batch.loss_mask.sum()
    right = model(batch.tokens[..., :-1]).argmax(-1) == batch.tokens[..., 1:]
    expected = (right & graded).sum((1, 2)) / graded.sum((1, 2))
    torch.testing.assert_close(evaluate(model, batch, of)["accuracy"], expected)


def test_of_a_text_the_cosine_of_states_is_the_mean_over_pairs_of_positions():
    text, model = replace(COPY, in_sight=lambda tokens: tokens > 3, window=COPY.length - 1), Transformer(SHAPE, (0, 1))
    batch = Stream(text, 6, (0, 1), "held out")(0)
    batch = Batch(batch.tokens, batch.loss_mask.clone())
    batch.loss_mask[:, 4:] = False  # what only fills up
    read = []
    with torch.no_grad(), model.norm.register_forward_pre_hook(lambda norm, given: read.append(given[0])):
        model(batch.tokens[..., :-1])
    expected = [
        [torch.cosine_similarity(one, other, dim=0) for each in states[:4] for one, other in combinations(each, 2)]
        for states in read[0]
    ]
    found = evaluate(model, batch, text, Compute(micro_batch=4))["cosine"]
    torch.testing.assert_close(found, torch.tensor(expected).mean(1))
    assert "cosine" not in evaluate(model, batch, COPY)


@pytest.mark.parametrize(("name", "passes"), [("haystack", 2), ("stack", 1), ("dyck", 1)])
def test_a_step_of_short_and_long_sequences_is_the_step_of_the_whole(monkeypatch, name, passes):
    of = source(name) if name != "dyck" else source(name, length=16, k=4)
    model = Transformer(Shape(of.vocab, of.length - 1), (0, 1))
    batch = Stream(of, 33, model.seeds, "stage")(0)
    monkeypatch.setattr(predictions, "WORTH", 0)
    assert len(short_and_long(batch)) == passes
    gradients = []
    for way in (lambda batch: [batch], short_and_long):
        monkeypatch.setattr(loop, "short_and_long", way)
        run = loop.Run(model, of, STAGE, "stage")
        run.optimizer.zero_grad()
        run._backward(batch, of)
        gradients.append([parameter.grad for parameter in model.parameters()])
        run.optimizer.zero_grad()
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


@given(st.data())
def test_short_and_long_sequences_lose_no_loss(data):
    replicas, count, time = (data.draw(st.integers(1, most)) for most in (3, 9, 12))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=replicas * count * time, max_size=10**4)))
    mask = mask[: replicas * count * time].view(replicas, count, time)
    tokens = torch.arange(mask.numel()).view(mask.shape)  # each is of one place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "WORTH", 0)
        found = short_and_long(Batch(tokens, mask))
    kept = torch.cat([part.tokens[part.loss_mask] for part in found])
    assert sorted(kept.tolist()) == tokens[mask].tolist()
    for part in found:
        assert part.tokens.shape == part.loss_mask.shape and part.tokens.shape[-1] >= min(2, time)
        assert torch.equal(part.tokens // time, part.tokens[..., :1] // time + torch.zeros_like(part.tokens))
        owners = part.tokens[..., 0] // (time * count)
        assert torch.equal(owners, torch.arange(replicas)[:, None].expand_as(owners))


@pytest.mark.parametrize("name", ["shuffled:dyck", *(name for name in RULES if name != "nca")])
def test_a_stage_makes_every_tensor_on_the_device_that_trains(monkeypatch, name):
    """A machine with a GPU makes on its CPU what is made here on the default device. (gzip judges nca's on a CPU.)"""
    of = source(name, **{"length": 32} if name.endswith(("dyck", "dyck_shuffle")) else {})
    model = Transformer(Shape(vocab=of.vocab, context=of.length, width=8, heads=2, dropout=0.1), (0, 1))
    monkeypatch.setattr(kernels, "eager_on_cpu", lambda tensor: False)
    monkeypatch.setattr(predictions, "WORTH", 0)
    with torch.device("meta"):
        rows = fit(model, of, Stage(steps=2, batch=4, warmup=0, held_out=4, evaluate_every=1))
    assert all(isfinite(row["value"]) for row in rows if row["metric"] == "loss") and len(rows) >= 4


def test_the_batch_of_a_step_depends_on_seed_and_step_alone():
    one, other = Stream(COPY, 8, (3, 5), "stage"), Stream(COPY, 8, (5,), "stage")
    for _ in range(3):
        one(0)
    assert torch.equal(one(70).tokens[1], other(70).tokens[0])
    assert not torch.equal(one(70).tokens[0], one(70).tokens[1])
    assert not torch.equal(one(70).tokens, one(71).tokens)
    assert not torch.equal(Stream(COPY, 8, (5,), "held out")(70).tokens, other(70).tokens)


def test_what_is_held_out_is_drawn_by_other_generators_than_what_is_trained_on():
    stage = replace(STAGE, steps=70)  # two blocks of batches

    def seeds() -> dict[int, set[int]]:
        """Those of the generators, by how many sequences were drawn of them."""
        seen: dict[int, set[int]] = {}

        def draw(count, generator):
            seen.setdefault(count, set()).add(generator.initial_seed())
            return COPY.draw(count, generator)

        fit(Transformer(SHAPE, (0, 1)), replace(COPY, draw=draw), stage)
        return seen

    found = seeds()
    held_out, training = (found[64 * count] for count in (stage.held_out, stage.batch))
    assert (len(held_out), len(training)) == (2, 4) and held_out.isdisjoint(training)
    assert seeds() == found


def long_run(folder: Path, dies_at: int | None = None) -> None:
    """A training with a checkpoint after every step; at that one its process is killed."""
    folder.mkdir(exist_ok=True)
    model, update = Transformer(SHAPE, (0, 1)), loop.Run.update

    def update_or_die(run, *given):
        if run.step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        update(run, *given)

    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(loop.Run, "update", update_or_die)
        fit(model, COPY, STAGE, checkpoint=folder / "run.safetensors", checkpoint_seconds=0)
    save(folder / "end.safetensors", model, 1)


def test_a_run_killed_without_warning_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, killed):
    stopped, whole = tmp_path / "killed", tmp_path / "whole"
    call = f"test_loop.long_run(test_loop.Path({str(stopped)!r}), dies_at=25)"
    killed(f"import test_loop; {call}", stopped / "end.safetensors")  # which it does not live to write
    assert read(stopped / "run.safetensors")[1]["step"] == 25
    for folder in (stopped, whole):
        long_run(folder)
    assert (stopped / "end.safetensors").read_bytes() == (whole / "end.safetensors").read_bytes()


def test_a_broken_or_foreign_checkpoint_is_one_line_and_stays(tmp_path):
    path = tmp_path / "run.safetensors"
    model = Transformer(SHAPE, (0,))
    fit(model, COPY, STAGE, checkpoint=path)
    with pytest.raises(UserError, match="belongs to other settings"):
        fit(Transformer(SHAPE, (0,)), COPY, replace(STAGE, lr=1e-2), checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot read checkpoint .*run\.safetensors"):
        fit(Transformer(SHAPE, (0,)), COPY, STAGE, checkpoint=path)


def test_weights_in_the_place_of_a_checkpoint_are_one_line(tmp_path):
    save(tmp_path / "stage_2.safetensors", Transformer(SHAPE, (0,)))
    with pytest.raises(UserError, match=r"checkpoint .*stage_2\.safetensors belongs to other settings"):
        fit(Transformer(SHAPE, (0,)), COPY, STAGE, checkpoint=tmp_path / "stage_2.safetensors")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    write(path, {"a": torch.ones(3)}, {"step": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("structure_first.model.weights.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        write(path, {"a": torch.zeros(3)}, {"step": 2})
    tensors, meta = read(path)
    assert meta == {"step": 1} and torch.equal(tensors["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_what_is_held_out_and_bears_no_loss_is_refused_before_any_training():
    """Of one replica of two: it would seem to have diverged."""

    def draw(count, generator):
        tokens, loss_mask = COPY.draw(count, generator)
        return Batch(tokens, loss_mask & (generator.initial_seed() % 2 == 0))

    silent = replace(COPY, name="silent", draw=draw)
    of_none = {seed: not Stream(silent, 2, [seed], "stage 2, held out")(0).loss_mask.any() for seed in range(9)}
    assert len(set(of_none.values())) == 2, "some seeds should bear loss and some none"
    seeds = [next(seed for seed, none in of_none.items() if none is wanted) for wanted in (False, True)]
    watched = []
    with pytest.raises(UserError, match=rf"of silent that seed {seeds[1]} draws bear no loss; raise held_out .*longer"):
        fit(
            Transformer(SHAPE, seeds),
            replace(COPY, held_out=silent),
            replace(STAGE, held_out=2),
            watch=lambda step, model: watched.append(step),
        )
    assert not watched


def test_the_curriculum_lengthens_the_sequences():
    stage = Stage(steps=80, batch=4, warmup=0, held_out=4, curriculum=(2, 3))
    lengths = [stage.length_at(step, 4) for step in range(80)]
    assert lengths[:20] == [2] * 20 and lengths[20:40] == [3] * 20 and lengths[40:] == [4] * 40
    rows = fit(Transformer(SHAPE, (0,)), COPY, stage)
    assert rows[-1]["tokens"] == 4 * (20 * 5 + 20 * 7 + 40 * 9)


def test_the_rate_warms_up_and_falls():
    cosine = Stage(steps=100, warmup=10, lr=1.0, floor=0.1)
    assert cosine.lr_at(0) == pytest.approx(0.1) and cosine.lr_at(9) == cosine.lr_at(10) == 1.0
    assert cosine.lr_at(55) == pytest.approx(0.55) and cosine.lr_at(100) == pytest.approx(0.1)
    linear = Stage(steps=100, warmup=0, lr=1.0, schedule="linear")
    assert linear.lr_at(25) == pytest.approx(0.75)
    assert Stage(steps=100, warmup=0, lr=1.0, schedule="constant").lr_at(99) == 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(schedule="cosin"), "did you mean 'cosine'"),
        (dict(steps=0), "steps must be 1 or more"),
        (dict(warmup=20_000), "warmup must lie between"),
        (dict(lr=-1.0), "lr must be above 0"),
        *((dict(lr=value), "lr must be above 0, at most 1000") for value in (inf, nan, 1e308)),
        *((dict(floor=value), "floor a share from 0 to 1") for value in (-0.1, 1.1, nan)),
        *((dict(weight_decay=value), "weight_decay must be 0 or more") for value in (-1.0, inf, nan, 1e308)),
        *((dict(clip=value), "clip above 0, or null for none") for value in (0.0, -1.0, inf, nan)),
        *((dict(mastery=value), "mastery must be an accuracy") for value in (0.0, 1.1, nan)),
        *((dict.fromkeys([name], 2**53 + 1), f"{name} must be 1 or more") for name in ("steps", "evaluate_every")),
        *((dict.fromkeys([name], 10**9), f"{name} must be 1 or more, and at most") for name in ("batch", "held_out")),
        (dict(warmup=-1), "warmup must lie between"),
    ],
)
def test_wrong_settings_say_why(wrong, message):
    with pytest.raises(UserError, match=message):
        Stage(**wrong)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=6, max_size=6), min_size=1, max_size=4))
def test_a_problem_is_solved_if_each_of_its_tokens_is_right(rows):
    number = torch.tensor([[[which for which, _ in row] for row in rows]])
    right = torch.tensor([[[good and which > 0 for which, good in row] for row in rows]])
    solved, asked = 0, 0
    for row in rows:
        for problem in {which for which, _ in row if which}:
            asked += 1
            solved += all(good for which, good in row if which == problem)
    assert [int(each) for each in predictions.solved(right, number)] == [solved, asked]
