"""What a program costs: counted rightly, and said so. How long it takes is not a test's business."""

import pytest

from structure_first.bench import speed


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
    monkeypatch.setattr(speed, "usable_memory", lambda device: 3.5 * one)
    assert list(speed.by_replicas(largest=64, scale="smoke", device="cpu", spend=0.0).index) == [1, 2]


def test_the_profile_is_of_an_update():
    found = speed.profiled(speed.program(2, "smoke", "cpu"), updates=2, largest=1000)
    assert {"_fused_adamw_", "sigmoid_", "native_layer_norm", "baddbmm"} <= set(found.index)
    each = found.drop(index="all of them")
    assert each["share"].sum() == pytest.approx(1) and each["ms"].is_monotonic_decreasing
    assert found.loc["_fused_adamw_", "calls"] == 1
