"""A step of our loop against the same GPT-2 from `transformers` in the plain loop that its documentation shows.

Both take the same batches from the same stream, clip, and step AdamW, in float32 and with as many threads; the peer
keeps no cache, and its labels are -100 wherever no loss is wanted. Ours keeps freed memory, as our training does, and
the peer's is as PyTorch leaves it; and ours cuts a sequence after its last loss, where that saves time. Then ten seeds
against one seed in the same loop: as one program, and as the runner trains them, a program of its own for every core.
"""

from functools import partial

import torch

from structure_first.bench.sides import Kept, Side, Sizes, Take, beside, by_steps, ending, programs, table
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import hf_config
from structure_first.training.devices import cores, keep_freed_memory
from structure_first.training.loop import Run
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TARGET_STEP, TARGET_REPLICAS = 3.0, 1.5


def ours(pairs: int, batch: int, replicas: int) -> Take:
    """Steps of the package's loop."""
    keep_freed_memory()
    of = source("haystack", pairs=pairs)
    model = Transformer(Shape(of.vocab, of.length - 1), range(replicas))
    run = Run(model, of, Stage(steps=10**6, batch=batch), "bench")
    stream = Stream(of, batch, model.seeds, "bench")
    return by_steps(lambda: run.update(stream(run.step), of))


def peers(pairs: int, batch: int) -> Take:
    """Steps of a plain PyTorch loop around the same model from transformers."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError:
        raise UserError("the bench compares with transformers, which is not installed; use make bench") from None
    logging.set_verbosity_error()
    of = source("haystack", pairs=pairs)
    model = GPT2LMHeadModel(GPT2Config(**hf_config(Shape(of.vocab, of.length)))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    batches = map(Stream(of, batch, [0], "bench"), range(10**6))

    def step() -> None:
        tokens, loss_mask = (tensor[0] for tensor in next(batches))
        optimizer.zero_grad()
        labels = tokens.masked_fill(~loss_mask, -100)
        model(input_ids=tokens, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return by_steps(step)


def report(sizes: Sizes, kept: Kept) -> None:
    steps, seeds = [], []
    one, peer = (Side(partial(make, batch=sizes.batch)) for make in (partial(ours, replicas=1), peers))
    at_once = programs(partial(ours, batch=sizes.batch), sizes.replicas)
    with ending(one, peer, *at_once.values()):
        for threads in sorted({1, cores()}):
            whole = threads == cores()
            for pairs in sizes.pairs:
                alone, theirs, together = beside(one, peer, at_once, pairs, threads, sizes)
                case = (f"{pairs} pairs", f"{threads}")
                what = f"haystack, {pairs} pairs, {threads} threads"
                steps.append(case + kept.judged(f"{what}: a step", alone, theirs, TARGET_STEP))
                for name, mine in together.items():
                    target = TARGET_REPLICAS if whole else None
                    seeds.append((*case, name, *kept.judged(f"{what}: seeds, {name}", mine, alone, target)))
    head: tuple[str, ...] = ("haystack", "threads", "ours", "transformers", "target", "met", "ratio, median (range)")
    table(f"Optimizer steps a second, batch {sizes.batch}, float32", head, steps)
    head = ("haystack", "threads", "as", "at once", "one", "target", "met", "ratio, median (range)")
    table(f"Models times steps a second, {sizes.replicas} seeds, against one on the same threads", head, seeds)
