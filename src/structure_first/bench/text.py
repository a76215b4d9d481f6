"""Text: a GPT-2-shaped step against transformers' own GPT-2.

Both take the same weights and one batch of random tokens, clip, and step fused AdamW, in float32 on a CPU and under
bfloat16 autocast on CUDA. The peer attends through PyTorch's own kernel, keeps no cache and is compiled; ours is
compiled on CUDA only. Each takes its matrix products where it does as it comes: ours has oneDNN multiply large float32
matrices, the peer leaves PyTorch's default. Compiling is not counted.
"""

from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, Text, TimedSteps
from structure_first.cost import flops
from structure_first.cost.hours import timed_update
from structure_first.data.batch import Source
from structure_first.data.common import predicted_from
from structure_first.machine import cores
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import to_hf
from structure_first.seeding import generator
from structure_first.training.compute import Compute
from structure_first.training.devices import LARGE, choose_products, device
from structure_first.training.stage import Stage

TARGET_STEP = 1.5


def model(case: Text) -> tuple[Transformer, Source, int]:
    """The transformer of a case, what it trains on, and the batch."""
    layers, heads, width, context, vocab, batch, dropout = case

    def draw(count: int, random: torch.Generator):
        return predicted_from(1, torch.randint(vocab, (count, context + 1), generator=random, device=random.device))

    of = Source("random tokens", {}, vocab, context + 1, context, "nothing", draw)
    transformer = Transformer(
        Shape(vocab, context, tied=True, dropout=dropout, layers=layers, heads=heads, width=width)
    )
    return transformer.to(device()), of, batch


def compute() -> Compute:
    """How both contenders compute on this machine."""
    return Compute(precision="bfloat16" if device().type == "cuda" else "float32")


def ours(case: Text) -> TimedSteps:
    """Steps of the package's loop."""
    transformer, of, batch = model(case)
    how = replace(compute(), compile=device().type == "cuda")
    return harness.by_steps(timed_update(transformer, of, Stage(steps=10**6, batch=batch), how))


def peers(case: Text) -> TimedSteps:
    """Steps of a plain PyTorch loop around the same model from transformers."""
    harness.quiet_transformers()
    transformer, of, batch = model(case)
    theirs = torch.nn.Module.to(to_hf(transformer.cpu()), device()).train()  # its own `to` tells no type
    theirs.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    tokens = of.draw(batch, generator(device(), 0)).tokens
    compiled = torch.compile(theirs)

    def step() -> None:
        optimizer.zero_grad()
        with compute().cast(device()):
            logits = compiled(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()

    return harness.by_steps(step)


def report(sizes: Sizes, ratios: Ratios) -> None:
    """Each shape against the peer, and how much of the matrix products' ceiling ours reaches."""
    cuda, lines, shares = device().type == "cuda", [], []
    sizes = replace(sizes, turns=min(sizes.turns, 3))
    ceiling = products()
    for case in sizes.texts_on_cuda if cuda else sizes.texts:
        layers, heads, width, context, vocab, batch, dropout = case
        contenders = {"ours": Contender(ours), "theirs": Contender(peers)}
        (rates,) = harness.compare(contenders, [(case, cores())], sizes)
        name = f"{layers} layers, {heads} heads, width {width}, vocabulary {vocab:,}, {batch} x {context}"
        name += f", dropout {dropout:g}" * bool(dropout)
        lines.append((name, f"{cores()}", *ratios.judged(f"text, {name}", **rates, target=TARGET_STEP)))
        transformer, of, _ = model(case)
        shares.append(f"{flops.training(transformer.shape, of) * batch * median(rates['ours']) / ceiling:.0%}")
    head = ("shape", "threads", "ours", "transformers", "target", "met", "ratio, median (range)")
    kind = "bfloat16 autocast" if cuda else "float32"
    harness.table(f"GPT-2-shaped steps a second, {kind}", head, lines)
    most = f"{ceiling / 1e9:,.0f} GFLOP/s of a large product measured here"
    print(f"  model FLOPs of ours, as a share of the {most}: {', '.join(shares)}")


def products() -> float:
    """FLOPs a second of a large matrix product, as ours asks for it, in the fastest of ten after one to warm up."""
    choose_products(LARGE)
    cuda = device().type == "cuda"
    size, kind = (8192, torch.bfloat16) if cuda else (2048, torch.float32)
    a, b, product = (torch.ones(size, size, device=device(), dtype=kind) for _ in range(3))
    timed = harness.by_steps(lambda: torch.mm(a, b, out=product))
    timed(1)
    return 2 * size**3 / min(timed(1) for _ in range(10))
