"""The command `structure-first`: every verb, and one line and exit status 2 for whatever a user gets wrong."""

import json
import os
import sys
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from structure_first import __version__
from structure_first.errors import UserError, unknown
from structure_first.training import signals

if TYPE_CHECKING:
    from structure_first.pretraining.budget import Cost
    from structure_first.runs.jobs import Job

SCALES = ("smoke", "laptop", "gpu", "paper")
FREE = {"allow_extra_args": True, "ignore_unknown_options": True}

STOPPED = (130, 143)  # the exit statuses after Ctrl-C, which typer gives, and after SIGTERM
MOST_SEEDS, MOST_WORKERS, LAST_SEED = 10_000, 1_000, 2**31 - 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
UsageError = typer.BadParameter.__base__  # click's, which some releases of typer carry inside themselves

Scale = Annotated[str, typer.Option(help="smoke, laptop, gpu or paper")]


def checked_scale(scale: str) -> str:
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    return scale


def check_range(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"{option} must be from {low:,} to {high:,}, not {value:,}")


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Teach a language model structure before you teach it language, and measure what it gains."""
    if version:
        typer.echo(f"structure-first {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def sources() -> None:
    """List every source with what it teaches and its settings."""
    from structure_first.data.registry import RULES

    for name, rule in RULES.items():
        settings = " ".join(f"--{setting} {value}" for setting, value in rule.defaults.items() if value is not None)
        typer.echo(f"{name:18} {rule.teaches}\n{'':18} {settings}")


@app.command(context_settings=FREE)
def generate(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="a source, shuffled:NAME or NAME+NAME; `structure-first sources` lists them")
    ],
    tokens: Annotated[int, typer.Option(help="how many, rounded up to whole sequences")],
    out: Annotated[Path, typer.Option(help="a .parquet or .jsonl file; its card is written beside it")],
    seed: Annotated[int, typer.Option(help="fixes every token")] = 0,
) -> None:
    """Write a source's sequences to a file.

    The source's settings are options too: --length 64, --vocab 100, --k 64, ...
    """
    from structure_first.data.generate import write
    from structure_first.data.registry import defaults, source

    given, known = settings(context.args), defaults(name)
    for setting in given:
        if setting not in known:
            options = [*known, *(parameter.name for parameter in context.command.params)]
            raise unknown(f"option of generate {name}", f"--{setting}", (f"--{option}" for option in options))
    written = write(source(name, **given), tokens, out, seed)
    typer.echo(f"wrote {written}")


def settings(arguments: list[str]) -> dict[str, int | float]:
    """`--length 64 --p=0.5` as {"length": 64, "p": 0.5}; the registry says which names and values are legal."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    if len(words) % 2:
        raise UserError(f"option {words[-1]!r} has no value; write --name value")
    found = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        if not option.startswith("--"):
            raise UserError(f"unexpected argument {option!r}; settings are written --name value")
        try:
            found[option[2:].replace("-", "_")] = float(value) if "." in value or "e" in value else int(value)
        except ValueError:
            raise UserError(f"option {option} takes a number, not {value!r}") from None
    return found


@app.command()
def pack(
    corpus: Annotated[str, typer.Argument(help="language, code, math, c4, codeparrot, hub:OWNER/NAME, or a path")],
    tokeniser: Annotated[str, typer.Option(help="bytes, characters, bpe:VOCAB, a folder, or a hub name")],
    out: Annotated[Path, typer.Option(help="the folder of shards")],
    limit_tokens: Annotated[int | None, typer.Option(help="about how many; all if left out")] = None,
    held_out: Annotated[float, typer.Option(help="the share of documents that are never trained on")] = 0.01,
    text_column: Annotated[str | None, typer.Option(help="of JSON lines, Parquet and the hub [default: text]")] = None,
    seed: Annotated[int, typer.Option(help="makes the questions of math, orders language and code")] = 0,
) -> None:
    """Pack a corpus into shards of tokens.

    A path is a text, JSON lines or Parquet file, a folder or a glob. Packing that was stopped goes on where it was when
    the same command is given again.
    """
    from structure_first.data.corpora.packing import pack

    made = pack(
        corpus, tokeniser, out, text_column=text_column, seed=seed, held_out=held_out, limit_tokens=limit_tokens
    )
    counts = ", ".join(
        f"{made['tokens'][split]:,} tokens of {made['documents'][split]:,} documents {said}"
        for split, said in (("train", "to train on"), ("held_out", "held out"))
    )
    typer.echo(f"packed {out}: {counts}; {made['documents']['duplicates']:,} copies dropped")


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="the experiment's name")],
    scale: Scale = "laptop",
    seeds: Annotated[int | None, typer.Option(help="how many; the scale's own number if left out")] = None,
    first_seed: Annotated[int | None, typer.Option(help="the first of them; the experiment's own if left out")] = None,
    out: Annotated[Path, typer.Option(help="the folder of results")] = Path("book/results"),
    cells: Annotated[str | None, typer.Option(help="only these, with commas between; * is anything")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[int | None, typer.Option(help="processes; one a core if left out")] = None,
    cluster: Annotated[str | None, typer.Option(help="the address of a Dask scheduler whose workers train")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print what is missing and its cost, and run nothing.")
    ] = False,
) -> None:
    """Run what is missing of an experiment and store its rows.

    A killed run goes on where it was when the same command is given again.
    """
    checked_scale(scale)
    from structure_first.evidence.statistics import final
    from structure_first.evidence.store import Store
    from structure_first.experiments.registry import EXPERIMENTS
    from structure_first.runs.planning import chosen as only
    from structure_first.runs.planning import plan
    from structure_first.runs.runner import processes
    from structure_first.runs.runner import run as run_experiment

    if experiment not in EXPERIMENTS:
        raise unknown("experiment", experiment, EXPERIMENTS)
    chosen = EXPERIMENTS[experiment]
    count = chosen.seeds[scale] if seeds is None else seeds
    first_seed = chosen.first_seed if first_seed is None else first_seed
    check_range("--seeds", count, 1, MOST_SEEDS)
    check_range("--first-seed", first_seed, 0, LAST_SEED - count)
    if workers is not None:
        check_range("--workers", workers, 1, MOST_WORKERS)
    if cluster and (workers is not None or plan_only):
        raise UserError("--workers and --plan are for this machine; leave them out where --cluster is given")
    wanted = range(first_seed, first_seed + count)
    names = None if cells is None else [cell.strip() for cell in cells.split(",")]
    if plan_only:
        workers = processes(device, workers)
        store = Store(out / chosen.name)
        show_plan(plan(only(chosen, scale, names), scale, wanted, store, device, workers).jobs, workers)
        return
    rows = run_experiment(chosen, scale, wanted, out, device, workers, names, cluster)
    accuracy, loss = (final(rows, metric).groupby("cell") for metric in ("accuracy", "loss"))
    for (cell, right), nats, seeds in zip(accuracy.median().items(), loss.median(), loss.size(), strict=True):
        typer.echo(f"{cell:38} median accuracy {right:.3f}, loss {nats:.3f}   of {seeds} seeds")


def show_plan(jobs: "list[Job]", workers: int) -> None:
    """What the jobs cost, a line for each kind of program."""
    from structure_first.runs.planning import costs

    if not jobs:
        typer.echo("nothing is missing")
        return
    table = costs(jobs, workers)
    typer.echo(table.to_string(index=False, float_format="{:.3g}".format))
    typer.echo(
        f"in all {table['models'].sum():,} models, {table['PFLOPs'].sum():.3g} PFLOPs and at most "
        f"{table['hours'].sum():.2g} hours on this machine with {workers} processes"
    )


Settings = Annotated[Path, typer.Argument(help="a YAML file; book/configs has some to begin with", metavar="CONFIG")]
Steps = Annotated[int | None, typer.Option(help="at most so many a stage, and as little of the corpus: a try")]


@app.command()
def train(
    config: Settings,
    out: Annotated[Path | None, typer.Option(help="the run's folder [default: runs/NAME of the file]")] = None,
    steps: Steps = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Train a model in two stages on a corpus of your own.

    Started again it goes on where it was. On several GPUs: torchrun --nproc-per-node 8 -m structure_first.cli train ...
    """
    from structure_first.pretraining.config import read
    from structure_first.pretraining.two_stages import TwoStages
    from structure_first.training import processes

    folder = out or Path("runs", config.stem if steps is None else f"{config.stem}-{steps}-steps")
    run = TwoStages(read(config).stopped_at(steps), folder, device)
    rows = run.train()
    if not processes.first():
        return
    for stage, found in rows.groupby("stage"):
        last = found[found["step"] == found["step"].max()].set_index("metric")
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
    from structure_first.pretraining.budget import costs
    from structure_first.pretraining.config import read

    if price is not None and not 0 <= price < float("inf"):
        raise UserError(f"--price must be 0 or more, not {price}")
    show_costs(costs(read(config).stopped_at(steps), gpu, gpus, utilisation), gpu, gpus, price)


def show_costs(costs: "list[Cost]", gpu: str, gpus: int, price: float | None) -> None:
    """A line for each stage, a line for the memory of each, and what it comes to."""
    machine = f"{gpus} x {gpu}"
    for cost in costs:
        hours = "unknown" if cost.hours is None else f"{cost.hours:.3g}"
        spent, evaluated = cost.flops / 1e15, cost.evaluation_flops / 1e15
        typer.echo(f"stage {cost.half.number}  {cost.half.label}: {cost.updates:,} updates, {cost.tokens:,} tokens")
        typer.echo(f"         {spent:.4g} PFLOPs, {evaluated:.3g} more to evaluate; hours on {machine}: {hours}")
        parts = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in cost.memory.items())
        typer.echo(
            f"         GB on each: {parts} ({cost.micro_batch:,} sequences at once), in all {cost.bytes / 1e9:.3g} "
            f"of {cost.available / 1e9:.3g}"
        )
        if not cost.fits:
            typer.echo(f"         it does NOT fit; {remedy(cost)}")
    tokens, spent = ([getattr(cost, name) for cost in costs] for name in ("tokens", "flops"))
    if len(costs) == 2:
        shares = f"{tokens[0] / tokens[1]:.2%} of stage two's tokens, {spent[0] / spent[1]:.2%} of its FLOPs"
        typer.echo(f"stage one is {shares}")
    if None in (hours := [cost.hours for cost in costs]):
        return
    bill = "" if price is None else f", {price * gpus * sum(hours):,.2f} at {price:g} a GPU-hour"
    typer.echo(
        f"in all {sum(tokens):,} tokens, {sum(spent) / 1e15:.4g} PFLOPs, {sum(hours):.3g} hours on {machine}{bill}"
    )


def remedy(cost: "Cost") -> str:
    if cost.most:
        return f"compute.micro_batch: {cost.most} would"
    return "not one sequence at once would; try compute.recompute, compute.sharded on several GPUs, or a smaller shape"


@app.command()
def claims(
    results: Annotated[Path, typer.Option(help="the folder of results")] = Path("book/results"),
    ledger: Annotated[Path, typer.Option(help="the list of claims")] = Path("book/claims.yml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects instead of a table.")] = False,
) -> None:
    """Print every claim with what was measured and its verdict."""
    from structure_first.evidence import claims as book

    entries = book.ledger(ledger, results)
    if as_json:
        typer.echo(json.dumps(book.as_json(entries), indent=2))
        return
    for entry in entries:
        scale = "" if entry.scale is None else f"{entry.scale}, {entry.seeds} seeds"
        typer.echo(f"{entry.id:13} {entry.verdict:15} {entry.gain(ends='[{}, {}]'):26} {scale:18} {entry.statement}")


@app.command()
def book(
    scale: Scale = "laptop",
    chapter: Annotated[str | None, typer.Option(help="the number of the one chapter to execute")] = None,
) -> None:
    """Run the chapters and build the book.

    Its first page is book/_build/html/index.html.
    """
    from structure_first.book.build import build

    typer.echo(f"built {build(checked_scale(scale), chapter)}")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: only to see that it runs.")] = False,
    only: Annotated[str | None, typer.Option(help="generators, steps, grid or text: one part of it")] = None,
    out: Annotated[Path | None, typer.Option(help="a JSON file for the ratios")] = None,
    against: Annotated[Path | None, typer.Option(help="such a file: exit 1 where a ratio was better")] = None,
) -> None:
    """Print this machine's speed, as ratios against named peers.

    The peers train the same; with --against, no ratio may be lower than 0.9 of what it was.
    """
    from structure_first.bench.report import compared, former, measured

    before = former(against) if against else None
    ratios = measured(quick, only, out)
    if before is not None and not compared(ratios, before):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error and exit status 2."""
    try:
        with signals.ending():
            code = app(standalone_mode=False, prog_name="structure-first") or 0
    except UserError as error:
        code, message = 2, str(error)
    except UsageError as error:
        code, message = 2, usage(error)
    except SystemExit as stopped:
        code, message = stopped.code, ""
    else:
        message = ""
    if code in STOPPED:
        message = "stopped; give the same command again to go on"
    if message and not said(message):
        print(f"structure-first: {message}", file=sys.stderr)
    sys.exit(code)


def said(message: str) -> bool:
    """Whether another of the processes that torchrun started here has said so, but for a reason in brackets."""
    if not (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        return False
    name = blake2b(message.partition(" (")[0].encode(), digest_size=8).hexdigest()
    try:
        Path(path).parents[1].joinpath(f"said-{name}").touch(exist_ok=False)  # in the folder that the processes share
    except OSError as error:
        return isinstance(error, FileExistsError)
    return False


def usage(error: Exception) -> str:
    """A usage error in one line, with the nearest verb or option."""
    if "No such command" in error.message:
        return str(unknown("verb", error.message.split("'")[1], error.ctx.command.commands))
    if error.message.startswith("No such option"):
        known = (option for parameter in error.ctx.command.params for option in parameter.opts)
        return str(unknown("option", error.option_name, known))
    return " ".join(error.format_message().split())


if __name__ == "__main__":
    main()
