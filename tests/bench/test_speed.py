"""What a program costs: counted rightly, and said so. How long it takes is not a test's business."""

import pytest

from structure_first.bench import speed
from structure_first.cost import flops


def test_the_program_is_the_grids_cell():
    job = speed.program(3)
    assert job.phase.source == "reversed_addition" and job.stage == 2
    assert job.phase.stage.batch == 64 and job.shape.width == 16 and job.seeds == (0, 1, 2)


def test_cost_is_measured_for_powers_of_two_until_it_is_too_much():
    found = speed.by_replicas(largest=5, scale="smoke", device="cpu", spend=0.0)
    assert list(found.index) == [1, 2, 4]
    assert (found["models x steps a second"] * found["seconds a step"]).tolist() == pytest.approx([1, 2, 4])
    assert (found["MB a replica, counted"] > 0).all()
    assert len(speed.by_replicas(largest=64, scale="smoke", device="cpu", spend=0.0, longest=0.0)) == 1


def test_no_program_is_measured_that_does_not_fit(monkeypatch):
    one = speed.bytes_of(speed.program(1, "smoke", "cpu"))
    monkeypatch.setattr(speed, "free_memory", lambda where: 5 * one)  # of which a share stays spare
    assert list(speed.by_replicas(largest=64, scale="smoke", device="cpu", spend=0.0).index) == [1, 2]


def test_the_floor_counts_products_and_bytes_by_the_replica():
    found = {}
    for replicas in (2, 4):  # one alone takes a few operations less
        job = speed.program(replicas, "smoke", "cpu")
        found[replicas] = speed.floor(job, spend=0.02)
    made = job.phase.make()
    products = flops.training(job.shape, made) * job.phase.stage.batch
    assert found[2].loc["matrix products", "counted"] == pytest.approx(2 * products / 1e9)
    twice = found[4]["counted"] / found[2]["counted"]
    assert twice["matrix products"] == pytest.approx(2)
    assert twice["bytes, if from memory"] == pytest.approx(2, rel=0.02)  # all but the causal masks
    assert twice["operator calls"] == pytest.approx(1, rel=0.02)
    assert found[2].loc["the step, measured", "share"] == pytest.approx(1)


def test_the_sentence_names_what_takes_most():
    found = speed.floor(speed.program(1, "smoke", "cpu"), spend=0.02)
    found["least ms"] = [10.0, 40.0, 90.0, 1.0, 1.0, 80.0]
    said = speed.held_back(found)
    assert "80 ms, 2.0 times its floor of 40 ms" in said
    assert "Most of the step goes to the bytes that the operators pass to one another: 40 ms" in said
    found["least ms"] = [10.0, 4.0, 9.0, 30.0, 10.0, 80.0]
    said = speed.held_back(found)
    assert "8.0 times its floor of 10 ms" in said and "the calls of the operators: 40 ms" in said


def test_operators_are_those_of_an_update():
    found = speed.operators(speed.program(2, "smoke", "cpu"), updates=1, largest=100)
    assert {"_fused_adamw_", "sigmoid_", "native_layer_norm", "baddbmm"} <= set(found.index)
    each = found.drop(index="all of them")
    assert each["share"].sum() == pytest.approx(1) and each["ms"].is_monotonic_decreasing
    assert found.loc["all of them", "calls"] == each["calls"].sum()
    assert found.loc["_fused_adamw_", "calls"] == 1
