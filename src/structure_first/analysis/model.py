"""Chapter 02: tables of the model, the transfer and the trainer, and a training that is cut off."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict

import pandas as pd
import torch
from torch import Tensor, nn

from structure_first.model import weights
from structure_first.model.transfer import Transfer, group
from structure_first.model.transformer import Shape, Transformer
from structure_first.seeding import generator


def parameters(model: Transformer) -> pd.DataFrame:
    """Every parameter outside the blocks and in the first of them, with its shape and its weights in one replica."""
    shown = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.0.") or not name.startswith("blocks.")
    }
    return pd.DataFrame(
        {
            "shape, replica first": [" x ".join(map(str, parameter.shape)) for parameter in shown.values()],
            "weights of a replica": [parameter[0].numel() for parameter in shown.values()],
            "group": [group(name) for name in shown],
        },
        index=pd.Index(shown, name="parameter"),
    )


def perturbed(shape: Shape) -> Transformer:
    """A model whose every weight matters: norms and biases too are moved off their initial values."""
    model, random = Transformer(shape), generator("cpu", 0, "perturbed")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def parity(shapes: Mapping[str, Shape]) -> pd.DataFrame:
    """How far logits and gradients of each shape are from those of Hugging Face's GPT-2 with the same weights."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about a progress bar that nobody needs here
            import transformers  # noqa: F401
    except ImportError:
        note = "transformers is not installed here, so there is nothing to compare with: pip install transformers"
        return pd.DataFrame({"note": note}, index=pd.Index(shapes, name="shape"))
    lines = {name: _differences(perturbed(shape)) for name, shape in shapes.items()}
    return pd.DataFrame(lines).T.rename_axis("shape").map("{:.1e}".format)


def _differences(model: Transformer) -> dict[str, float]:
    theirs = weights.to_hf(model)
    tokens = torch.randint(model.shape.vocab, (1, 4, model.shape.context), generator=generator("cpu", 0, "parity"))
    ours, reference = model(tokens)[0], theirs(tokens[0]).logits
    gradients = Transformer(model.shape)
    own_gradients = torch.autograd.grad(ours.square().mean(), list(model.parameters()))
    with torch.no_grad():
        for mine, gradient in zip(gradients.parameters(), own_gradients, strict=True):
            mine.copy_(gradient)
    named = weights.hf_state(gradients)
    others = torch.autograd.grad(reference.square().mean(), [theirs.get_parameter(name) for name in named])
    pairs = list(zip(named.values(), others, strict=True))
    return {
        "largest logit": ours.abs().max().item(),
        "differs by": _furthest(ours, reference),
        "largest gradient": max(reference.abs().max().item() for _, reference in pairs),
        "differs by at most": max(_furthest(mine, reference) for mine, reference in pairs),
    }


def _furthest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def side_by_side(runs: Mapping[str, list[dict]], seed: int) -> pd.DataFrame:
    """What a seed measured in each of some runs, evaluation by evaluation."""
    frames = {name: pd.DataFrame(row for row in rows if row["seed"] == seed) for name, rows in runs.items()}
    return pd.DataFrame({name: rows.set_index(["metric", "step"])["value"] for name, rows in frames.items()}).round(5)


def carried(transfers: Mapping[str, Transfer], shape: Shape) -> pd.DataFrame:
    """The groups of weights, their sizes, and what each transfer makes of them."""
    sizes: dict[str, int] = dict.fromkeys(asdict(Transfer()), 0)
    for name, parameter in Transformer(shape).named_parameters():
        sizes[group(name)] += parameter.numel()
    table = pd.DataFrame({"weights": sizes} | {name: asdict(rules) for name, rules in transfers.items()})
    return table.rename_axis("group")


def largest(parts: Mapping[str, int]) -> str:
    """The largest of some parts and its share, in words."""
    name = max(parts, key=lambda part: parts[part])
    return f"{name}, {parts[name] / sum(parts.values()):.0%}"


class PowerCut(Exception):
    """What `cut_at` raises."""


def cut_at(step: int) -> Callable[[int, Transformer], None]:
    """A `watch` for `fit` that breaks off at a step, as if somebody had pulled the plug."""

    def watch(now: int, model: Transformer) -> None:
        if now == step:
            raise PowerCut

    return watch


def furthest(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between two models' weights."""
    return max(_furthest(mine, other) for mine, other in zip(a.parameters(), b.parameters(), strict=True))
