"""Bytes are those of the tensors that an op is given and gives back; what only looks at memory moves none."""

import pytest
import torch
from torch import nn

from structure_first.bench.speed import program
from structure_first.bench.traffic import Traffic, ceilings, floor, held_back, operators
from structure_first.cost import flops

FLOAT = 4


def counted(work) -> Traffic:
    with Traffic() as traffic:
        work()
    return traffic


@pytest.mark.parametrize(
    ("work", "read", "written"),
    [
        (lambda a, b: a + b, 200, 100),
        (lambda a, b: a.add_(b), 200, 100),  # in place reads what it changes
        (lambda a, b: a.copy_(b), 100, 100),  # but not what it overwrites
        (lambda a, b: a.zero_(), 0, 100),
        (lambda a, b: torch.add(a, b, out=torch.empty_like(a)), 200, 100),
        (lambda a, b: torch.empty_like(a), 0, 0),
        (lambda a, b: torch.zeros_like(a), 0, 100),
        (lambda a, b: torch.mm(a.view(4, 25), b.view(25, 4)), 200, 16),
        (lambda a, b: a.sum(), 100, 1),
        (lambda a, b: b[:10].expand(3, 10).contiguous(), 10, 30),  # nothing is read thrice
        (lambda a, b: torch._foreach_mul_([a, b], 2.0), 200, 200),
        (lambda a, b: a.sum().item(), 101, 1),
    ],
)
def test_an_op_moves_the_bytes_of_its_tensors(work, read, written):
    a, b = torch.ones(100), torch.ones(100)
    traffic = counted(lambda: work(a, b))
    assert (traffic.read, traffic.written) == (FLOAT * read, FLOAT * written)


def test_views_move_nothing():
    x = torch.ones(4, 6)
    traffic = counted(lambda: (x.view(24), x.t(), x[1:], x.split(2, 1), x.detach(), x[None].expand(3, -1, -1)))
    assert traffic.bytes == 0 and traffic.calls == 0 and traffic.views >= 6


def test_the_backward_pass_is_counted_too():
    layer, x = nn.Linear(8, 4, bias=False), torch.ones(2, 8)
    out, gradient = layer(x), torch.ones(2, 4)
    traffic = counted(lambda: out.backward(gradient))
    product = FLOAT * (2 * 4 + 2 * 8 + 4 * 8)  # of the gradient and the input, into the weights' gradient
    assert traffic.bytes == product


def test_a_fused_optimizer_reads_and_writes_its_state_and_only_reads_gradients():
    weights = nn.Parameter(torch.ones(50))
    optimizer = torch.optim.AdamW([weights], fused=True)
    for _ in range(2):
        weights.grad = torch.ones(50)
        traffic = counted(optimizer.step)
    moved, bytes_moved, _ = traffic.by_op["_fused_adamw_"]
    assert moved == 1
    assert bytes_moved == FLOAT * (4 * 50 + 3 * 50 + 1)  # and the count of steps


def test_each_op_is_listed_with_its_share():
    a = torch.ones(10)
    traffic = counted(lambda: (a + a, a + a, a * a))
    assert set(traffic.by_op) == {"add", "mul"}
    assert traffic.by_op["add"][0] == 2
    assert sum(each[1] for each in traffic.by_op.values()) == traffic.bytes
    assert all(seconds > 0 for _, _, seconds in traffic.by_op.values())


def test_ceilings_are_rates():
    most = ceilings("cpu", 0.01)
    assert most.flops > 1e8 and most.memory > 1e7 and most.cache > 1e7
    assert 0 < most.call < 1 and 0 < most.view < 1


def test_the_floor_counts_products_and_bytes_by_the_replica():
    found = {}
    for replicas in (2, 4):  # one alone takes a few operations less
        job = program(replicas, "smoke", "cpu")
        found[replicas] = floor(job, spend=0.02)
    made = job.phase.make()
    products = flops.training(job.shape, made) * job.phase.stage.batch
    assert found[2].loc["matrix products", "counted"] == pytest.approx(2 * products / 1e9)
    twice = found[4]["counted"] / found[2]["counted"]
    assert twice["matrix products"] == pytest.approx(2)
    assert twice["bytes, if from memory"] == pytest.approx(2, rel=0.02)  # all but the causal masks
    assert twice["operator calls"] == pytest.approx(1, rel=0.02)
    assert found[2].loc["the step, measured", "share"] == pytest.approx(1)


def test_the_sentence_names_what_takes_most():
    found = floor(program(1, "smoke", "cpu"), spend=0.02)
    found["least ms"] = [10.0, 40.0, 90.0, 1.0, 1.0, 80.0]
    said = held_back(found)
    assert "80 ms, 2.0 times its floor of 40 ms" in said
    assert "Most of the step goes to the bytes that the operators pass to one another: 40 ms" in said
    found["least ms"] = [10.0, 4.0, 9.0, 30.0, 10.0, 80.0]
    said = held_back(found)
    assert "8.0 times its floor of 10 ms" in said and "the calls of the operators: 40 ms" in said


def test_operators_are_those_of_an_update():
    found = operators(program(2, "smoke", "cpu"), updates=1, largest=100)
    assert {"_fused_adamw_", "sigmoid_", "native_layer_norm", "baddbmm"} <= set(found.index)
    each = found.drop(index="all of them")
    assert each["share"].sum() == pytest.approx(1) and each["ms"].is_monotonic_decreasing
    assert found.loc["all of them", "calls"] == each["calls"].sum()
    assert found.loc["_fused_adamw_", "calls"] == 1
