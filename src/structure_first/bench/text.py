"""Text: packing a corpus and drawing from it, and a GPT-2-shaped step against transformers' own GPT-2.

Packing and drawing are one process with one thread each, which has nothing else in memory; its memory is what it cannot
give back, without the pages of the mapped shards. The steps take the same weights and tokens, clip, and step fused
AdamW, in float32 on a CPU and under bfloat16 autocast on CUDA. The peer attends through PyTorch's own kernel, keeps no
cache and is compiled; ours is compiled on CUDA only. Each takes its matrix products where it does as it comes: ours
has oneDNN multiply large float32 matrices, the peer leaves PyTorch's default. Compiling is not counted.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from structure_first.bench import harness
from structure_first.bench.harness import Contender, Ratios, Sizes, TimedSteps
from structure_first.cost import flops
from structure_first.data.batch import Source
from structure_first.data.common import predicted_from
from structure_first.data.corpora import packed
from structure_first.machine import cores
from structure_first.model.transformer import Shape, Transformer
from structure_first.model.weights import to_hf
from structure_first.training.compute import Compute
from structure_first.training.devices import LARGE, choose_products, device, keep_freed_memory
from structure_first.training.loop import Run
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TARGET_PACKING, TARGET_STEP = 5.0, 1.5
WINDOW, SEQUENCES = 1024, 16  # of a batch that is drawn
PIECE = 1 << 20  # characters of a corpus written at once


def report(sizes: Sizes, ratios: Ratios) -> None:
    head = ("corpus", "packed, M tokens/s", "target", "met", "drawn, M tokens/s", "memory, MB")
    harness.table("Bytes, packed and drawn from by one process, one thread", head, list(corpora(sizes)))
    steps(sizes, ratios)


def corpora(sizes: Sizes) -> Iterator[tuple[str, ...]]:
    """A line for a corpus, and for one ten times as large."""
    for megabytes in (sizes.megabytes, 10 * sizes.megabytes):
        alone = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)
        with TemporaryDirectory() as folder, alone:
            packing = alone.submit(packs, Path(folder), megabytes).result()
            drawing, memory = alone.submit(draws, Path(folder), sizes).result()
        shown = "-" if memory is None else f"{memory:,.0f}"
        verdict = (f"{TARGET_PACKING:g}", harness.met(packing, TARGET_PACKING))
        yield f"{megabytes:g} MB", f"{packing:.1f}", *verdict, f"{drawing:.1f}", shown


def packs(folder: Path, megabytes: float) -> float:
    """Millions of tokens a second at which random words become shards."""
    from structure_first.data.corpora.packing import pack

    torch.set_num_threads(1)
    random, letters = np.random.default_rng(0), np.frombuffer(b"etaoinshrdlu    \n", np.uint8)
    corpus = folder / "corpus.txt"
    with open(corpus, "wb") as file:
        for start in range(0, int(megabytes * 1e6), PIECE):
            file.write(letters[random.integers(len(letters), size=min(PIECE, int(megabytes * 1e6) - start))].tobytes())
    began = perf_counter()
    manifest = pack(corpus, "bytes", folder / "packed", held_out=0.0)
    return sum(manifest["tokens"].values()) / (perf_counter() - began) / 1e6


def draws(folder: Path, sizes: Sizes) -> tuple[float, float | None]:
    """Millions of tokens a second drawn from the shards, and megabytes of memory after that."""
    torch.set_num_threads(1)
    of = packed.Packed(folder / "packed").source(WINDOW)
    stream, step, rates = Stream(of, SEQUENCES, [0], "bench"), 0, []
    for _ in range(sizes.turns):
        began, drawn = perf_counter(), 0
        while perf_counter() - began < sizes.seconds or not drawn:
            drawn += sum(stream(step + more).tokens.numel() for more in range(stream.block))
            step += stream.block
        rates.append(drawn / (perf_counter() - began) / 1e6)
    return median(rates), own_memory()


def own_memory() -> float | None:
    """Megabytes of this process that are no file's, where the system says."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return None


def model(case: tuple[int, ...]) -> tuple[Transformer, Source, int]:
    """The transformer of a case, what it trains on, and the batch; `Sizes.texts` says what a case is."""
    layers, heads, width, context, vocab, batch = case

    def draw(count: int, random: torch.Generator):
        return predicted_from(1, torch.randint(vocab, (count, context + 1), generator=random, device=random.device))

    of = Source("random tokens", {}, vocab, context + 1, context, "nothing", draw)
    transformer = Transformer(Shape(vocab, context, tied=True, layers=layers, heads=heads, width=width))
    return transformer.to(device()), of, batch


def compute() -> Compute:
    """How both contenders compute on this machine."""
    return Compute(precision="bfloat16" if device().type == "cuda" else "float32")


def ours(case: tuple[int, ...]) -> TimedSteps:
    """Steps of the package's loop."""
    keep_freed_memory()
    transformer, of, batch = model(case)
    how = replace(compute(), compile=device().type == "cuda")
    run = Run(transformer, of, Stage(steps=10**6, batch=batch), "bench", how)
    given = Stream(of, batch, [0], "bench", device())(0)
    return harness.by_steps(lambda: run.update(given, of))


def peers(case: tuple[int, ...]) -> TimedSteps:
    """Steps of a plain PyTorch loop around the same model from transformers."""
    harness.quiet_transformers()
    transformer, of, batch = model(case)
    theirs = torch.nn.Module.to(to_hf(transformer.cpu()), device()).train()  # its own `to` tells no type
    theirs.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    tokens = Stream(of, batch, [0], "bench", device())(0).tokens[0]
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


def steps(sizes: Sizes, ratios: Ratios) -> None:
    """Each shape against the peer, and how much of the matrix products' ceiling ours reaches."""
    cuda, lines, shares = device().type == "cuda", [], []
    sizes = replace(sizes, turns=min(sizes.turns, 3))
    ceiling = products()
    for case in sizes.texts_on_cuda if cuda else sizes.texts:
        layers, heads, width, context, vocab, batch = case
        with harness.ending(Contender(ours), Contender(peers)) as contenders:
            mine, theirs = harness.compare(list(contenders), case, cores(), sizes)
        name = f"{layers} layers, {heads} heads, width {width}, vocabulary {vocab:,}, {batch} x {context}"
        lines.append((name, f"{cores()}", *ratios.judged(f"text, {name}", mine, theirs, TARGET_STEP)))
        transformer, of, _ = model(case)
        shares.append(f"{flops.training(transformer.shape, of) * batch * median(mine) / ceiling:.0%}")
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
