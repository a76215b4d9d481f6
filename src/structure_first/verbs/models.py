"""The verbs of models: warming up one of one's own, and reading what a trained one writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from structure_first.verbs.common import LAST_SEED, app, check_range
from structure_first.verbs.data import FREE, chosen

BOOK = Path("book")


@app.command(context_settings=FREE)
def warm(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="a config.json of transformers, or a folder with one")],
    source: Annotated[str, typer.Option(help="`structure-first sources` lists them; shuffled:NAME, NAME+NAME")],
    out: Annotated[Path, typer.Option(help="the folder of the warmed-up model, new or empty")],
    seed: Annotated[int, typer.Option(help="of fresh weights and of every batch")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="at most; it ends once the source is learnt [default: 2,500]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="sequences an update [default: 64]")] = None,
    lr: Annotated[float | None, typer.Option(help="the rate [default: 5e-4 at width 768, and as one over it]")] = None,
    embeddings: Annotated[str, typer.Option(help="of the model afterwards: keep, or fresh: drawn anew")] = "keep",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: of products; weights stay float32")] = "float32",
    micro_batch: Annotated[int | None, typer.Option(help="sequences computed at once [default: all]")] = None,
) -> None:
    """Warm up a Hugging Face model with structure.

    Weights beside the configuration are taken; without any they are drawn. The source's settings are options too:
    --length 32, --vocab 50, ... `AutoModelForCausalLM.from_pretrained` loads what is written.
    """
    from structure_first.pretraining.warm_folder import warm_folder
    from structure_first.training.compute import Compute

    check_range("--seed", seed, 0, LAST_SEED)
    given: dict[str, Any] = {"steps": steps, "batch": batch, "lr": lr}
    stage = {name: value for name, value in given.items() if value is not None}
    made, compute = chosen(source, context), Compute(precision=precision, micro_batch=micro_batch)
    lines = ledger()

    def say(line: str) -> None:
        for each in (*lines, line):  # the ledger's go first, once
            typer.echo(each)

    options: dict[str, Any] = dict(seed=seed, embeddings=embeddings, device=device, compute=compute, say=say)
    reached = warm_folder(model, out, made, **options, **stage)["reached"]
    typer.echo(f"{out} holds it: accuracy {reached['accuracy']:.3f} in stage one, after {reached['updates']:,} updates")


def ledger() -> Iterator[str]:
    """What the stored runs say of structure in front of text, and of a better start of the weights, where they are."""
    if not (BOOK / "results").is_dir():
        return
    from structure_first.analysis import claims, published
    from structure_first.analysis.stored import of_today, with_factors
    from structure_first.experiments.published import EXPERIMENT, PUBLISHED

    for scale, rows in of_today(EXPERIMENT, BOOK / "results").items():
        body = next(iter(EXPERIMENT.recipes(scale).values())).body
        ends = published.ends(published.curves(with_factors(rows, EXPERIMENT)))
        ladder = ends[ends["task"] == "code"]
        cold = (
            ladder[ladder["label"] == "random init"]
            .groupby(["swept", "amount"])["loss"]
            .median()
            .groupby("swept")
            .min()
        )
        yield f"the ledger at {body.layers} layers x {body.width}, on code, in nats a byte:"
        yield from published.rungs(ladder).replace("*", "").splitlines()
        yield f"- a better start alone, of weights and rate: {cold[PUBLISHED] - cold.min():+.3f}; see to that first"
    yield claims.verdicts("additive", claims=BOOK / "claims.yml", results=BOOK / "results").replace("*", "")
