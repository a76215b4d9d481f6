"""Transfer as a value: what each group of weights becomes between stage one and stage two.

Everything done to weights between the stages is one `Transfer`: keeping a group, starting it afresh, destroying its
structure while keeping its values, or taking it from another run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from structure_first.errors import UserError, check_known, unknown
from structure_first.model.transformer import Shape, Transformer
from structure_first.seeding import generator

RULES = {
    "keep": "as stage one left it; fresh where a token or position was not in stage one",
    "fresh": "as if there had been no stage one",
    "rescale": "stage one's, each matrix and table brought to the root-mean-square size of a fresh one; vectors kept",
    "mean": "every row the mean of stage one's rows (embeddings, positions)",
    "match": "stage one's rows; the mean of them where a token was not in stage one (embeddings)",
    "fits": "as stage one left it, but fresh if stage one's context was shorter than stage two's (positions)",
    "resample": "rows drawn from a normal with the mean and covariance of stage one's rows (embeddings, positions)",
    "draw": "as resample, by the covariance's symmetric root: rounding may not flip it (embeddings, positions)",
    "permute": "stage one's values in random order within each tensor",
    "rotate": "stage one's singular values in random directions (a vector's values in random order)",
    "noise(sigma)": "stage one's, plus normal noise of sigma times each tensor's standard deviation",
    "from(name)": "as another run left it",
}
TABLES = ("embeddings", "positions")
ONLY = {"mean": TABLES, "resample": TABLES, "draw": TABLES, "match": ("embeddings",), "fits": ("positions",)}
LOUDEST = 1000  # noise, in deviations: far beyond what leaves anything of the weights, and far from overflow


def group(name: str) -> str:
    """The transfer group of a parameter, from its name."""
    if name in ("embedding", "unembedding"):
        return "embeddings"
    if name == "position":
        return "positions"
    if name.endswith((".scale", ".shift")):
        return "norms"
    return "attention" if ".attention." in name else "mlp"


@dataclass(frozen=True)
class Transfer:
    """One rule of `RULES` per group of weights; the default carries everything but the embeddings (paper: full).

    Raises `UserError` for a rule that there is not, or that is for other groups.
    """

    attention: str = "keep"
    mlp: str = "keep"
    norms: str = "keep"
    positions: str = "keep"
    embeddings: str = "fresh"

    def __post_init__(self):
        for part, rule in asdict(self).items():
            named = rule.isalpha() and rule in RULES  # the others have an argument
            if not named and not re.fullmatch(r"noise\(\d+(\.\d+)?\)|from\(.+\)", rule):
                raise unknown(f"transfer rule for {part}", rule, RULES)
            if rule.startswith("noise(") and float(rule[6:-1]) > LOUDEST:
                raise UserError(f"noise for {part} must be at most {LOUDEST} deviations, not {rule}; lower its sigma")
            if part not in (allowed := ONLY.get(rule, (part,))):
                raise UserError(f"transfer rule {rule!r} is for {' and '.join(allowed)}, not for {part}; use keep")

    @classmethod
    def only(cls, *groups: str, **rules: str) -> "Transfer":
        """Keep the `groups` and start everything else afresh, unless `rules` says otherwise."""
        for name in groups:
            check_known("group of weights", name, cls.__dataclass_fields__)
        return cls(**{name: "keep" if name in groups else "fresh" for name in cls.__dataclass_fields__} | rules)


@torch.no_grad()
def transfer(
    trained: Transformer,
    shape: Shape,
    rules: Transfer,
    seeds: Sequence[int],
    others: Mapping[str, Transformer] | None = None,
) -> Transformer:
    """A transformer of `shape` for stage two; replica r starts from replica r of `trained` and from `seeds[r]`.

    Vocabulary and context may differ from stage one's: rows that fit are taken, the rest stay fresh. Raises
    `UserError` where the layers' shapes differ or `from(name)` names none of `others`, or one of another body.
    """
    model, others = Transformer(shape, seeds).to(trained.position.device), others or {}
    _same_body("stage one", trained, model)
    for name, target in model.named_parameters():
        rule = getattr(rules, group(name))
        if rule == "fresh":
            continue
        source = trained
        if rule.startswith("from("):
            other = rule[5:-1]
            check_known("run to transfer from", other, others)
            source, rule = others[other], "keep"
            _same_body(f"run {other!r}", source, model)
        # A tied stage one has one table: a head of its own starts from the rows that the embeddings start from.
        origin = "embedding" if name == "unembedding" and source.unembedding is None else name
        values = source.get_parameter(origin)
        for replica, seed in enumerate(seeds):
            random = generator("cpu", seed, "transfer", origin)
            new = _apply(rule, values[replica].cpu(), target[replica].cpu(), random)
            fits = tuple(slice(min(a, b)) for a, b in zip(new.shape, target.shape[1:], strict=True))
            target[replica][fits] = new[fits].to(target)
    return model


def _same_body(name: str, source: Transformer, model: Transformer) -> None:
    """Raise `UserError` unless the weights of `name` are of as many replicas and of such layers as the model's."""
    bodies = [(shape.layers, shape.heads, shape.width) for shape in (source.shape, model.shape)]
    if source.replicas != model.replicas or bodies[0] != bodies[1]:
        raise UserError(
            f"cannot transfer: {name} has {source.replicas} replicas of {source.shape}, stage two "
            f"{model.replicas} of {model.shape}; replicas, layers, heads, width must agree"
        )


def _apply(
    rule: str, values: Float[Tensor, "..."], fresh: Float[Tensor, "..."], random: torch.Generator
) -> Float[Tensor, "..."]:
    """What stage one's `values` become, whose place a `fresh` tensor holds; what they do not cover stays fresh."""
    if rule == "rescale" and values.ndim == 2:
        wanted, size = (tensor.square().mean().sqrt() for tensor in (fresh, values))
        return values * (wanted / size) if size else values
    if rule == "mean":
        return reduce(values, "row width -> 1 width", "mean").expand(len(fresh), -1)
    if rule == "match":
        unknown_rows = max(0, len(fresh) - len(values))
        return torch.cat([values, reduce(values, "row width -> 1 width", "mean").expand(unknown_rows, -1)])
    if rule == "fits":
        return values if len(values) >= len(fresh) else fresh
    if rule in ("resample", "draw"):
        rows = values.double() if rule == "draw" else values
        scale, basis = torch.linalg.eigh(torch.cov(rearrange(rows, "row width -> width row"), correction=0))
        spread = scale.clamp(min=0).sqrt()
        normal = torch.randn(len(fresh), values.shape[1], generator=random).to(rows)
        # The symmetric root is one, whichever signs or, of equal eigenvalues, eigenvectors rounding brings.
        drawn = normal @ ((basis * spread) @ basis.T) if rule == "draw" else (normal * spread) @ basis.T
        return (rows.mean(0) + drawn).to(values)
    if rule == "rotate" and values.ndim == 2:
        left, right = (_orthogonal(size, random) for size in values.shape)
        return left @ values @ right
    if rule in ("permute", "rotate"):
        return values.flatten()[torch.randperm(values.numel(), generator=random)].reshape(values.shape)
    if rule.startswith("noise("):
        sigma = float(rule[6:-1]) * values.std(correction=0)
        return values + sigma * torch.randn(values.shape, generator=random)
    return values


def _orthogonal(size: int, random: torch.Generator) -> Float[Tensor, "size size"]:
    """A rotation or reflection, each as likely as any other (Mezzadri 2007)."""
    basis, triangle = torch.linalg.qr(torch.randn(size, size, generator=random))
    return basis * triangle.diagonal().sign()
