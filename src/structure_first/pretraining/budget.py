"""What a run of two stages will take, before anything of it is spent: tokens, FLOPs, memory, hours and money."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from structure_first.cost import flops
from structure_first.data.batch import Batch, Source
from structure_first.data.corpora.documents import documents
from structure_first.data.corpora.hub import HUB
from structure_first.data.corpora.packed import read_manifest
from structure_first.data.corpora.tokenisers import VOCABS, tokeniser
from structure_first.data.registry import source
from structure_first.errors import UserError, unknown
from structure_first.model.kernels import narrow
from structure_first.model.transformer import Shape, Transformer
from structure_first.pretraining.config import Config, Corpus
from structure_first.pretraining.two_stages import Half, halves
from structure_first.runs.jobs import out_of_memory
from structure_first.runs.planning import free_memory, saved_bytes, seconds_of, timed_update
from structure_first.training.compute import Compute
from structure_first.training.devices import device as pick_device


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
USABLE = 0.92  # of the memory; the rest is for kernels, and for what fragments
THERE_AND_BACK = 2  # the loss's gradient and the logits', each as large as the largest piece that is kept


@dataclass(frozen=True)
class Cost:
    """What one stage takes; the memory is that of each process, in bytes."""

    half: Half
    updates: int
    flops: int
    evaluation_flops: int
    memory: dict[str, float]  # by what takes it
    each: float  # what one more sequence in the micro batch takes
    micro_batch: int
    available: float
    hours: float | None  # None where this machine is to be timed and cannot hold it

    @property
    def tokens(self) -> int:
        return self.half.tokens

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


def costs(config: Config, gpu: str = THIS, gpus: int = 1, utilisation: float = UTILISATION) -> list[Cost]:
    """A cost for each stage, on GPUs of a kind in `GPUS` or on machines such as this one, which is then timed.

    Nothing is packed or trained. Raises `UserError` for a GPU, a path or a tokeniser that is not there.
    """
    if gpu not in (*GPUS, THIS):
        raise unknown("GPU", gpu, (*GPUS, THIS))
    if not 1 <= gpus <= MOST_GPUS:
        raise UserError(f"--gpus must be from 1 to {MOST_GPUS:,}, not {gpus:,}")
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation must be a share above 0 and at most 1, not {utilisation}")
    return [cost(half, config.compute, gpu, gpus, utilisation) for half in halves(config, stand_in(config.corpus))]


def cost(half: Half, compute: Compute, gpu: str, gpus: int, utilisation: float) -> Cost:
    training, own = half.training, -(-half.training.batch // gpus)
    micro_batch = min(own, compute.micro_batch or own)
    memory, each = memory_of(half, compute, micro_batch, gpus)
    forward = flops.training(half.shape, half.source) // 3  # of a sequence
    evaluations = 1 + -(-training.steps // training.evaluate_every)
    found = Cost(
        half=half,
        updates=training.steps,
        flops=half.flops(),
        evaluation_flops=evaluations * training.held_out * forward,
        memory=memory,
        each=each,
        micro_batch=micro_batch,
        available=USABLE * (free_memory(pick_device()) if gpu == THIS else GPUS[gpu].memory * 1e9),
        hours=None,
    )
    if gpu == THIS:
        if not found.most:
            return found
        batch = min(micro_batch, found.most)
        rate = 3 * forward * batch / timed(half, batch, compute)
        spent = found.flops + found.evaluation_flops
    else:
        rate = getattr(GPUS[gpu], compute.precision) * 1e12 * utilisation
        spent = found.flops * (4 / 3 if compute.recompute else 1) + found.evaluation_flops
    return replace(found, hours=spent / (rate * gpus) / 3600)


def stand_in(corpus: Corpus) -> Source:
    """A source of the size that the corpus will have once it is packed."""
    return source("random", vocab=vocab(corpus), length=corpus.context + 1)


def vocab(corpus: Corpus) -> int:
    """How many tokens the corpus's tokeniser has, at most; raises `UserError` where one of the two is not there."""
    if corpus.packed is not None:
        return read_manifest(corpus.packed)["tokeniser"]["vocab"]
    if corpus.name not in HUB and not corpus.name.startswith("hub:"):
        documents(corpus.name, corpus.text_column, corpus.seed)  # reads no more than names
    if corpus.vocab is not None:
        return corpus.vocab
    kind, _, size = corpus.tokeniser.partition(":")
    if kind == "bpe" and size.isdecimal() and VOCABS[0] <= int(size) <= VOCABS[1]:
        return int(size)
    return tokeniser(corpus.tokeniser, lambda: ()).vocab


def memory_of(half: Half, compute: Compute, micro_batch: int, processes: int) -> tuple[dict[str, float], float]:
    """The bytes of a process by what takes them, and those of each sequence in the micro batch."""
    one, two = (kept(half.shape, half.source, compute, count) for count in (1, 2))
    share = 4 * weights_of(half.shape) / (processes if compute.sharded else 1)
    activations = one + (micro_batch - 1) * (two - one)
    memory = {"weights": share, "gradients": share, "AdamW": 2 * share, "activations": activations}
    if compute.sharded:
        # The rest of the model is gathered for a whole step, and two blocks at a time, each with its gradients.
        block = weights_of(replace(half.shape, layers=2)) - weights_of(replace(half.shape, layers=1))
        gathered = weights_of(half.shape) - (half.shape.layers - 2) * block
        memory["gathered"] = 2 * gathered * (2 if compute.precision == "bfloat16" else 4)
    return memory, two - one


def weights_of(shape: Shape) -> int:
    """How many weights a transformer of that shape has."""
    with FakeTensorMode():
        return sum(parameter.numel() for parameter in Transformer(shape, fresh=False).parameters())


def kept(shape: Shape, made: Source, compute: Compute, count: int) -> float:
    """Bytes at the peak of a backward pass over `count` sequences, weights and gradients left out.

    The forward pass is run on tensors that have a size and no memory. Where blocks are computed again in the backward
    pass, one of them at a time is there, and of each its input.
    """
    alone = replace(shape, layers=1) if compute.recompute else shape
    # The narrow kernel looks at numbers; a model that it serves is small.
    small = narrow(shape.width // shape.heads, shape.context)
    with nullcontext() if small else FakeTensorMode(), compute.cast(torch.device("cpu")):
        model = Transformer(alone, fresh=False)
        tokens = torch.zeros(1, count, made.length, dtype=torch.long)
        sizes = saved_bytes(model, Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)), made)
    inputs = 4 * count * (made.length - 1) * shape.width * (shape.layers if compute.recompute else 0)
    return sum(sizes) + THERE_AND_BACK * max(sizes) + inputs


def timed(half: Half, batch: int, compute: Compute) -> float:
    """Seconds of an update of so many sequences on this machine."""
    stage = replace(half.training.stage, batch=batch)
    try:
        model = Transformer(half.shape).to(pick_device())
        return seconds_of(timed_update(model, half.source, stage, compute), spend=1.0, least=1)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"{batch} sequences need more memory than there is; lower compute.micro_batch") from None
