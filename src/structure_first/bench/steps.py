"""A step of our loop against the same GPT-2 from `transformers` in the plain loop that its documentation shows.

Both take the same batches from the same stream, clip, and step AdamW, in float32 and with as many threads; the peer
keeps no cache, and its labels are -100 wherever no loss is wanted. Ours keeps freed memory, as our training does, and
the peer's is as PyTorch leaves it; and ours cuts a sequence after its last loss, where that saves time. Then ten seeds
against one seed in the same loop: as one program, and as the runner trains them, a program of its own for every core.
"""

from functools import partial
from itertools import product

import torch

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, TimedSteps
from structure_first.data.registry import source
from structure_first.machine import cores
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import hf_config
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TARGET_STEP, TARGET_REPLICAS = 3.0, 1.5


def ours(pairs: int, batch: int, replicas: int) -> TimedSteps:
    of = source("haystack", pairs=pairs)
    model = Transformer(Shape(of.vocab, of.length - 1), range(replicas))
    return harness.updates(model, of, Stage(steps=10**6, batch=batch))


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
    at_once = harness.programs(partial(ours, batch=sizes.batch), sizes.replicas)
    one, peer = (Contender(partial(make, batch=sizes.batch)) for make in (partial(ours, replicas=1), peers))
    cases = [(pairs, threads) for threads, pairs in product(sorted({1, cores()}), sizes.pairs)]
    rates = harness.compare({"one": one, "peer": peer, **at_once}, cases, sizes)
    for (pairs, threads), of_case in zip(cases, rates, strict=True):
        case, what = (f"{pairs} pairs", f"{threads}"), f"haystack, {pairs} pairs, {threads} threads"
        alone, theirs = of_case.pop("one"), of_case.pop("peer")
        steps.append(case + ratios.judged(f"{what}: a step", alone, theirs, TARGET_STEP))
        target = TARGET_REPLICAS if threads == cores() else None
        for name, mine in of_case.items():
            seeds.append((*case, name, *ratios.judged(f"{what}: seeds, {name}", mine, alone, target)))
    head = ["haystack", "threads", "ours", "transformers", "target", "met", "ratio, median (range)"]
    harness.table(f"Optimizer steps a second, batch {sizes.batch}, float32", head, steps)
    head = ["haystack", "threads", "as", "at once", "one", "target", "met", "ratio, median (range)"]
    harness.table(f"Models times steps a second, {sizes.replicas} seeds, against one on the same threads", head, seeds)
