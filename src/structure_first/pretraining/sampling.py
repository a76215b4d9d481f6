"""Text from a trained run, as nanoGPT's `sample.py` writes it."""

from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from structure_first.data.corpora import tokenisers
from structure_first.errors import UserError, check_range
from structure_first.model import weights
from structure_first.model.transformer import Transformer
from structure_first.seeding import generator
from structure_first.training.devices import device as pick_device

COLDEST, HOTTEST = 1e-6, 100  # what is colder is the likeliest token as well, but overflows


def sample(
    run: Path,
    prompt: str = "",
    *,
    tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> str:
    """The prompt and what the model of a run in two stages goes on with; the same seed gives the same text.

    A token is drawn from the `top_k` likeliest, or all, by their logits over the temperature. The model begins as a
    document begins, and sees at most its context. Raises `UserError` where there is no trained run, or a setting is out
    of range.
    """
    check_range("tokens", tokens, 1, 1 << 20)
    check_range("top_k", top_k, 1, 1 << 24)
    if not 0 < temperature <= HOTTEST:
        raise UserError(
            f"temperature must be above 0 and at most {HOTTEST}, not {temperature}; top_k 1 is the likeliest"
        )
    path, export = Path(run) / "weights" / "stage_2.safetensors", Path(run) / "export" / tokenisers.FILE
    for needed in (path, export):
        if not needed.exists():
            raise UserError(f"{run} holds no trained run ({needed} is missing); name the folder that `train` wrote")
    random = generator(where := pick_device(device), seed, "sample")
    tokeniser, model = tokenisers.saved(export), weights.load(path).to(where).eval()
    ids, _ = tokeniser.encode([prompt])
    written = torch.tensor([tokeniser.separator, *ids.tolist()], device=where)
    for _ in trange(tokens, desc="sample", unit="token", leave=False, disable=None):
        written = torch.cat([written, following(model, written, temperature, top_k, random)])
    return tokeniser.decode(written.cpu().numpy().astype(np.uint32))


@torch.inference_mode()
def following(
    model: Transformer, written: torch.Tensor, temperature: float, top_k: int | None, random: torch.Generator
) -> torch.Tensor:
    """The next token."""
    seen = written[-model.shape.context :]
    logits = model(seen[None, None], torch.tensor([[[len(seen) - 1]]], device=seen.device)).flatten()
    if not logits.isfinite().all():
        problem = "the model's logits are not finite: its training diverged"
        raise UserError(f"{problem}; train again with a lower lr and another --out")
    logits /= max(temperature, COLDEST)
    if top_k is not None:
        logits[logits < logits.topk(min(top_k, len(logits))).values[-1]] = -torch.inf
    return torch.multinomial(logits.softmax(-1), 1, generator=random)
