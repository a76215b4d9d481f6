"""The verbs of one's own training: what it would cost, and doing it."""

from pathlib import Path
from typing import Annotated

import typer

from structure_first.errors import check_range
from structure_first.verbs.common import MOST_PRICE, Device, app

Settings = Annotated[Path, typer.Argument(help="a YAML file; book/configs has some to begin with", metavar="CONFIG")]
Steps = Annotated[int | None, typer.Option(help="at most so many a stage, and as little of the corpus: a try")]


@app.command()
def train(
    config: Settings,
    out: Annotated[Path | None, typer.Option(help="the run's folder [default: runs/NAME of the file]")] = None,
    steps: Steps = None,
    device: Device = "auto",
) -> None:
    """Train a model in two stages on a corpus of your own.

    Started again it goes on where it was. On several GPUs, with
    `torchrun --nproc-per-node 8 -m structure_first.cli train ...` instead.
    """
    from structure_first.pretraining import two_stages
    from structure_first.pretraining.config import read
    from structure_first.training import processes

    folder = out or Path("runs", config.stem if steps is None else f"{config.stem}-{steps}-steps")
    rows = two_stages.train(read(config).stopped_at(steps), folder, device)
    if not processes.is_main():
        return
    for stage, measurements in rows.groupby("stage"):
        last = measurements[measurements["step"] == measurements["step"].max()].set_index("metric")
        loss, tokens, step = (last.loc["loss", name] for name in ("value", "tokens", "step"))
        typer.echo(f"stage {stage}  held-out loss {loss:.4f} nats a token after {step:,} updates, {tokens:,} tokens")
    typer.echo(f"rows, weights/ and export/, which Hugging Face loads, are in {folder}")


@app.command()
def plan(
    config: Settings,
    gpu: Annotated[str, typer.Option(help="h100, a100-80gb, ...; this: time this machine")] = "h100",
    gpus: Annotated[int, typer.Option(help="how many")] = 1,
    price: Annotated[float | None, typer.Option(help="of an hour of one of them, in any currency")] = None,
    utilisation: Annotated[float, typer.Option(help="the share of its peak that a GPU is taken to reach")] = 0.3,
    steps: Steps = None,
) -> None:
    """Print what a training would cost before it starts.

    Tokens, FLOPs, memory, hours and money of each stage; nothing is packed or trained.
    """
    from structure_first.pretraining.config import read
    from structure_first.pretraining.stages import jobs, stand_in
    from structure_first.runs.budget import cost, lines

    check_range("--price", price, 0, MOST_PRICE)
    planned = read(config).stopped_at(steps)
    costs = [cost(job, gpu, gpus, utilisation) for job in jobs(planned, stand_in(planned.corpus))]
    for line in lines(costs, gpu, gpus, price):
        typer.echo(line)
