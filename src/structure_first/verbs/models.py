"""The verbs of models: warming up one of one's own, and reading what a trained one writes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from structure_first.errors import UserError, check_range
from structure_first.verbs.common import LAST_SEED, RESULTS, Device, app
from structure_first.verbs.data import FREE, chosen

if TYPE_CHECKING:
    from pandas import DataFrame

    from structure_first.runs.recipe import Experiment


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
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: of products; weights stay float32")] = "float32",
    micro_batch: Annotated[int | None, typer.Option(help="sequences computed at once [default: all]")] = None,
) -> None:
    """Warm up a Hugging Face model with structure.

    The weights of a folder are taken; for a configuration alone they are drawn. The source's settings are options too:
    `--length 32`, `--vocab 50`, ... `AutoModelForCausalLM.from_pretrained` loads what is written.
    """
    from structure_first.pretraining.warm_folder import warm_folder
    from structure_first.training.compute import Compute

    check_range("--seed", seed, 0, LAST_SEED)
    given: dict[str, Any] = {"steps": steps, "batch": batch, "lr": lr}
    stage = {name: value for name, value in given.items() if value is not None}
    data, compute = chosen(source, context), Compute(precision=precision, micro_batch=micro_batch)
    lines = ledger()

    def say(line: str) -> None:
        with suppress(UserError, KeyError):  # there are no such runs here, or not all of them
            for each in lines:
                typer.echo(each)
        typer.echo(line)

    options: dict[str, Any] = dict(seed=seed, embeddings=embeddings, device=device, compute=compute, say=say)
    reached = warm_folder(model, out, data, **options, **stage)["reached"]
    typer.echo(f"{out} holds it: accuracy {reached['accuracy']:.3f} in stage one, after {reached['updates']:,} updates")


def ledger() -> Iterator[str]:
    """What the stored runs say of structure in front of text, and of a better start of the weights, where they are."""
    from structure_first.analysis import published, text
    from structure_first.analysis.stored import sizes, stored
    from structure_first.evidence.statistics import told
    from structure_first.experiments.additive import CONTROLLED, FORMER
    from structure_first.experiments.published import EXPERIMENT
    from structure_first.experiments.text import BEST, MAIN

    for rows in sizes(EXPERIMENT, RESULTS):
        ladder = published.climbed(published.ends(published.curves(rows)))
        yield f"the ledger at {sized(EXPERIMENT, rows)}, in nats a token:"
        yield from published.worth(ladder).reset_index().to_string(index=False).splitlines()
        for corpus, steps in ladder.groupby("task"):
            by_step = steps.groupby(["label", "step"])[["loss", "gain"]].median()
            ends = by_step.loc["random init", "loss"]
            start, front = ends[published.STEPS[0]] - ends.min(), by_step.loc[("set", published.STEPS[0]), "gain"]
            words = f"- on {corpus} a better start alone, of weights and rate: {start:+z.3f}"
            yield words + "; see to that first" * bool(start > front)
    rows = stored(FORMER, RESULTS)
    ends = text.ends(text.curves(rows)).set_index(["front", "share"]).sort_index()
    gains = ends.loc[(MAIN, CONTROLLED[0])].groupby(["task", "carried"])["gain"]
    shown = (f"{task} {told('{:+z.3f}', gains.get_group((task, part)))}" for task, part in BEST.items())
    yield f"the ledger at {sized(FORMER, rows)}, tuned: {MAIN} {CONTROLLED[0]:.0%} in front gains on {', '.join(shown)}"


def sized(experiment: "Experiment", rows: "DataFrame") -> str:
    body = next(iter(experiment.recipes(rows["scale"].iloc[0]).values())).body
    return f"{body.layers} layers x {body.width}"


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="the folder of a run that `train` wrote")],
    prompt: Annotated[str | None, typer.Option(help="what the text begins with")] = None,
    tokens: Annotated[int, typer.Option(help="how many are added")] = 200,
    temperature: Annotated[float, typer.Option(help="below 1: the likelier the likelier")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="only from so many likeliest [default: all]")] = None,
    seed: Annotated[int, typer.Option(help="fixes every token")] = 0,
    device: Device = "auto",
) -> None:
    """Print text that a trained model writes."""
    from structure_first.pretraining.sampling import sample as written

    check_range("--seed", seed, 0, LAST_SEED)
    options: dict[str, Any] = dict(tokens=tokens, temperature=temperature, top_k=top_k, seed=seed, device=device)
    typer.echo(written(run, prompt or "", **options))
