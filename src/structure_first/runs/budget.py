"""What a job will take, before anything of it is spent: tokens, FLOPs, memory, hours and money."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from structure_first.cost import flops, memory
from structure_first.cost.hours import seconds_of, timed_update
from structure_first.errors import UserError, check_known, check_range
from structure_first.model.transformer import Transformer
from structure_first.runs.jobs import Job
from structure_first.training.devices import device as pick_device
from structure_first.training.devices import enough_memory


class GPU(NamedTuple):
    """A data sheet: peak TFLOP/s without sparsity, in bfloat16 (float32 sums) and in float32, and memory in GB."""

    bfloat16: float
    float32: float
    memory: float


GPUS = {  # NVIDIA's data sheets; of those that come in several forms the SXM
    "rtx3090": GPU(71, 35.6, 24),
    "rtx4090": GPU(165, 82.6, 24),
    "l4": GPU(121, 30.3, 24),
    "l40s": GPU(362, 91.6, 48),
    "a10": GPU(125, 31.2, 24),
    "a100-40gb": GPU(312, 19.5, 40),
    "a100-80gb": GPU(312, 19.5, 80),
    "h100": GPU(989, 67, 80),
    "h200": GPU(989, 67, 141),
    "b200": GPU(2250, 75, 180),
}
THIS = "this"  # machine, which is timed
MOST_GPUS = 1 << 16
UTILISATION = 0.3  # of the peak, where nothing is said; well-run training reaches 0.3 to 0.5 (Chowdhery et al. 2022)


@dataclass(frozen=True)
class Cost:
    """What a job takes; the memory is that of each process, in bytes."""

    job: Job
    tokens: int  # and FLOPs: of one of its models, unless it masters its source before
    flops: int
    evaluation_flops: int
    memory: dict[str, float]  # of all its models, by what takes it
    each: float  # what one more sequence in the micro batch takes
    micro_batch: int
    available: float
    hours: float | None = None  # None where this machine is to be timed and cannot hold it

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.bytes <= self.available

    @property
    def most(self) -> int:
        """The largest micro batch that fits, or 0."""
        return max(0, self.micro_batch + int((self.available - self.bytes) // self.each))


def cost(job: Job, gpu: str = THIS, gpus: int = 1, utilisation: float = UTILISATION) -> Cost:
    """What a job costs on GPUs of a kind in `GPUS` or on machines such as this one, which is then timed.

    Raises `UserError` for a GPU that is not known, for `gpus` and a `utilisation` that cannot be, and for what does not
    fit.
    """
    check_known("GPU", gpu, (*GPUS, THIS))
    check_range("--gpus", gpus, 1, MOST_GPUS)
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation must be a share above 0 and at most 1, not {utilisation}")
    stage, source, shape, compute, models = job.phase.stage, job.source, job.shape, job.compute, len(job.replicas)
    share = -(-stage.batch // gpus)
    micro_batch = min(share, compute.micro_batch or share)
    by_use, each = memory.needed(shape, source, stage, micro_batch, compute, gpus)
    usable = memory.usable_memory(pick_device(job.device)) if gpu == THIS else memory.USABLE * GPUS[gpu].memory * 1e9
    sequence = flops.training(shape, source)
    evaluations = 1 + -(-stage.steps // stage.evaluate_every)
    estimate = Cost(
        job=job,
        tokens=flops.tokens(stage, source),
        flops=flops.spent(stage, source, shape),
        evaluation_flops=evaluations * stage.held_out * sequence // 3,
        memory={name: models * size for name, size in by_use.items()},
        each=models * each,
        micro_batch=micro_batch,
        available=usable,
    )
    spent: float = estimate.flops + estimate.evaluation_flops
    if gpu != THIS:
        rate = getattr(GPUS[gpu], compute.precision) * 1e12 * utilisation / models
        spent += estimate.flops / 3 if compute.recompute else 0
    elif batch := min(micro_batch, estimate.most):
        lower = "compute.micro_batch" if compute.micro_batch else "the batch"
        with enough_memory(UserError(f"{batch} sequences need more memory than there is; lower {lower}")):
            rate = sequence * batch / seconds_of(update_of(job, batch))
    else:
        return estimate
    return replace(estimate, hours=spent / (rate * gpus) / 3600)


def bytes_of(job: Job) -> int:
    """Memory that one replica of the job takes while it trains."""
    stage = job.phase.stage
    return int(sum(memory.needed(job.shape, job.source, stage, stage.batch, job.compute)[0].values()))


def update_of(job: Job, batch: int) -> Callable[[], None]:
    """An update of all the job's replicas, from fresh weights and on one batch of that size, drawn beforehand."""
    model = Transformer(job.shape, job.seeds).to(pick_device(job.device))
    return timed_update(model, job.source, replace(job.phase.stage, batch=batch), job.compute)


def lines(costs: Sequence[Cost], gpu: str, gpus: int, price: float | None) -> Iterator[str]:
    """Of each stage what it does, what it takes and its memory; and what it all comes to."""
    machine = f"{gpus} x {gpu}"
    for cost in costs:
        hours = "unknown" if cost.hours is None else f"{cost.hours:.3g}"
        spent, evaluated = cost.flops / 1e15, cost.evaluation_flops / 1e15
        yield f"{cost.job.name}: {cost.job.phase.stage.steps:,} updates, {cost.tokens:,} tokens"
        yield f"         {spent:.4g} PFLOPs, {evaluated:.3g} more to evaluate; hours on {machine}: {hours}"
        uses = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in cost.memory.items())
        total = f"{cost.bytes / 1e9:.3g} of {cost.available / 1e9:.3g}"
        yield f"         GB on each: {uses} ({cost.micro_batch:,} sequences at once), in all {total}"
        if not cost.fits:
            yield f"         it does NOT fit; {remedy(cost)}"
    if len(costs) == 2:
        one, two = costs
        shares = f"{one.tokens / two.tokens:.2%} of stage two's tokens, {one.flops / two.flops:.2%} of its FLOPs"
        yield f"stage one is {shares}"
    known = [cost.hours for cost in costs if cost.hours is not None]
    if len(known) == len(costs):
        bill = "" if price is None else f", {price * gpus * sum(known):,.2f} at {price:g} a GPU-hour"
        tokens, spent = sum(cost.tokens for cost in costs), sum(cost.flops for cost in costs) / 1e15
        whole = f"{tokens:,} tokens, {spent:.4g} PFLOPs, {sum(known):.3g} hours on {machine}"
        yield f"in all {whole}{bill}"


def remedy(cost: Cost) -> str:
    if cost.most:
        return f"compute.micro_batch: {cost.most} would"
    return "not one sequence at once would; try compute.recompute, compute.sharded on several GPUs, or a smaller shape"
