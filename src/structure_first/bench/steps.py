"""A step of our loop against the same GPT-2 from `transformers` in the plain loop that its documentation shows.

Both take the same batches from the same stream, clip, and step AdamW, in float32 and with as many threads; the peer
keeps no cache, and its labels are -100 wherever no loss is wanted. Ours keeps freed memory, as our training does, and
the peer's is as PyTorch leaves it; and ours cuts a sequence after its last loss, where that saves time. Then ten seeds
against one seed in the same loop: as one program, and as the runner trains them, a program of its own for every core.
"""

from functools import partial

import torch

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, TimedSteps
from structure_first.data.registry import source
from structure_first.machine import cores
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import hf_config
from structure_first.training.devices import keep_freed_memory
from structure_first.training.loop import Run
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TARGET_STEP, TARGET_REPLICAS = 3.0, 1.5


def ours(pairs: int, batch: int, replicas: int) -> TimedSteps:
    """Steps of the package's loop."""
    keep_freed_memory()
    of = source("haystack", pairs=pairs)
    model = Transformer(Shape(of.vocab, of.length - 1), range(replicas))
    run = Run(model, of, Stage(steps=10**6, batch=batch), "bench")
    stream = Stream(of, batch, model.seeds, "bench")
    return harness.by_steps(lambda: run.update(stream(run.step), of))


def peers(pairs: int, batch: int) -> TimedSteps:
    """Steps of a plain PyTorch loop around the same model from transformers."""
    peer, of = harness.quiet_transformers(), source("haystack", pairs=pairs)
    model = peer.GPT2LMHeadModel(peer.GPT2Config(**hf_config(Shape(of.vocab, of.length)))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    batches = map(Stream(of, batch, [0], "bench"), range(10**6))

    def step() -> None:
        tokens, loss_mask = (tensor[0] for tensor in next(batches))
        optimizer.zero_grad()
        labels = tokens.masked_fill(~loss_mask, -100)
        model(input_ids=tokens, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return harness.by_steps(step)


def report(sizes: Sizes, ratios: Ratios) -> None:
    steps, seeds = [], []
    one, peer = (Contender(partial(make, batch=sizes.batch)) for make in (partial(ours, replicas=1), peers))
    at_once = harness.programs(partial(ours, batch=sizes.batch), sizes.replicas)
    with harness.ending(one, peer, *at_once.values()):
        for threads in sorted({1, cores()}):
            whole = threads == cores()
            for pairs in sizes.pairs:
                alone, theirs, together = harness.compare_all(one, peer, at_once, pairs, threads, sizes)
                case = (f"{pairs} pairs", f"{threads}")
                what = f"haystack, {pairs} pairs, {threads} threads"
                steps.append(case + ratios.judged(f"{what}: a step", alone, theirs, TARGET_STEP))
                for name, mine in together.items():
                    target = TARGET_REPLICAS if whole else None
                    seeds.append((*case, name, *ratios.judged(f"{what}: seeds, {name}", mine, alone, target)))
    head: tuple[str, ...] = ("haystack", "threads", "ours", "transformers", "target", "met", "ratio, median (range)")
    harness.table(f"Optimizer steps a second, batch {sizes.batch}, float32", head, steps)
    head = ("haystack", "threads", "as", "at once", "one", "target", "met", "ratio, median (range)")
    harness.table(f"Models times steps a second, {sizes.replicas} seeds, against one on the same threads", head, seeds)
