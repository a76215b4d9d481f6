"""The verbs of experiments: running them, making their rows again, merging and judging them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from structure_first import scales
from structure_first.errors import UserError, check_known, check_range
from structure_first.verbs.common import LAST_SEED, MOST_SEEDS, MOST_WORKERS, RESULTS, Device, Scale, app

if TYPE_CHECKING:
    from structure_first.runs.jobs import Job
    from structure_first.runs.recipe import Experiment

Cells = Annotated[str | None, typer.Option(help="only these, with commas between; * is anything")]
Workers = Annotated[int | None, typer.Option(help="processes; if left out one a core, or one on a GPU")]


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="the experiment's name")],
    scale: Scale = "laptop",
    seeds: Annotated[int | None, typer.Option(help="how many; the scale's own number if left out")] = None,
    first_seed: Annotated[int | None, typer.Option(help="the first of them; the experiment's own if left out")] = None,
    out: Annotated[Path, typer.Option(help="the folder of results")] = RESULTS,
    cells: Cells = None,
    device: Device = "auto",
    workers: Workers = None,
    cluster: Annotated[str | None, typer.Option(help="the address of a Dask scheduler whose workers train")] = None,
    part: Annotated[
        float, typer.Option(help="make the first part of every stage two alone and store no row; without, it goes on")
    ] = 1.0,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print what is missing and its cost, and run nothing.")
    ] = False,
) -> None:
    """Run what is missing of an experiment and store its rows.

    A killed run goes on where it was when the same command is given again.
    """
    scales.checked(scale)
    from structure_first.evidence.statistics import final
    from structure_first.evidence.store import Store
    from structure_first.runs.planning import chosen as only
    from structure_first.runs.planning import plan
    from structure_first.runs.runner import run as run_experiment
    from structure_first.runs.runner import worker_count

    chosen = experiment_of(experiment)
    if cluster and (workers is not None or plan_only):
        raise UserError("--workers and --plan are for this machine; leave them out where --cluster is given")
    if plan_only and part != 1:
        raise UserError("--plan is of whole runs; leave --part out")
    # says so where there are no such cells, or none at this scale
    wished = only(chosen, scale, cells_of(cells, chosen, scale))
    count = chosen.seeds.get(scale, 1) if seeds is None else seeds
    first_seed = chosen.first_seed if first_seed is None else first_seed
    check_range("--seeds", count, 1, MOST_SEEDS)
    check_range("--first-seed", first_seed, 0, LAST_SEED - count)
    check_range("--workers", workers, 1, MOST_WORKERS)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder with --out")
    wanted = range(first_seed, first_seed + count)
    if plan_only:
        workers = worker_count(device, workers)
        show_plan(plan(wished, scale, wanted, Store(out / chosen.name), device, workers).jobs, workers)
        return
    rows = run_experiment(wished, scale, wanted, out, device, workers, cluster=cluster, part=part)
    accuracy, loss = (final(rows, metric).groupby("cell") for metric in ("accuracy", "loss"))
    for (cell, right), nats, seeds in zip(accuracy.median().items(), loss.median(), loss.size(), strict=True):
        typer.echo(f"{cell:38} median accuracy {right:.3f}, loss {nats:.3f}   of {seeds} seeds")


@app.command()
def verify(
    experiment: Annotated[str, typer.Argument(help="the experiment's name")],
    scale: Scale = "laptop",
    cells: Cells = None,
    sample: Annotated[int | None, typer.Option(help="so many models of them; all if left out")] = None,
    results: Annotated[Path, typer.Option(help="the folder of results")] = RESULTS,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Make stored rows again, and say which differ and by how much; status 1 if a model does not hold."""
    scales.checked(scale)
    from structure_first.runs.verify import verify

    check_range("--sample", sample, 1, MOST_SEEDS)
    check_range("--workers", workers, 1, MOST_WORKERS)
    chosen = experiment_of(experiment)
    table = verify(chosen, scale, results, cells_of(cells, chosen, scale), sample, device, workers)
    typer.echo(table.to_string(index=False, float_format="{:.3g}".format))
    typer.echo(f"{table['holds'].sum()} of {len(table)} models hold, {table['bits'].sum()} of them bit for bit")
    if not table["holds"].all():
        raise typer.Exit(1)


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(help="a folder of results that another machine wrote")],
    out: Annotated[Path, typer.Option(help="the folder that they are added to")] = RESULTS,
) -> None:
    """Add another machine's results to one's own; where they conflict, say where, and add nothing there."""
    from structure_first.evidence.store import Store

    folders = sorted(path.parent for path in folder.glob("*/manifest.json"))
    if not folders:
        raise UserError(f"there are no results in {folder}; name a folder such as {RESULTS}, with one an experiment")
    for other in folders:
        store = Store(out / other.name)
        with store.locked():
            typer.echo(f"{other.name}: {store.merge(Store(other))} models added")


def experiment_of(name: str) -> "Experiment":
    from structure_first.experiments.registry import EXPERIMENTS

    check_known("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def cells_of(names: str | None, experiment: "Experiment", scale: str) -> list[str] | None:
    from structure_first.runs.planning import named

    return None if names is None else named(names, experiment.cells(scale))


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
        f"{table['hours'].sum(skipna=False):.2g} hours on this machine with {workers} processes"
    )


@app.command()
def claims(
    results: Annotated[Path, typer.Option(help="the folder of results")] = RESULTS,
    ledger: Annotated[Path, typer.Option(help="the list of claims")] = Path("book/claims.yml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects instead of a table.")] = False,
) -> None:
    """Print every claim with what was measured and its verdict."""
    from structure_first.analysis import answers
    from structure_first.analysis.claims import ledger as answered
    from structure_first.analysis.comparison import COLUMNS

    if not results.is_dir():
        raise UserError(f"there is no folder {results}; go to the folder of the book, or name it with --results")
    entries = answered(ledger, results)
    if as_json:
        typer.echo(json.dumps(answers.as_json(entries), indent=2, default=str))
        return
    for entry in entries:
        typer.echo(f"{entry.id}: {entry.statement}")
        for column in COLUMNS:
            answer = getattr(entry, column)
            if answer is None:
                typer.echo(f"  {column:9}  not yet run")
                continue
            each = answer.decides
            text = f"{each.unit} {each.gain(ends='[{}, {}]')}, {each.seeds} seeds, {each.scale}"
            typer.echo(f"  {column:9}  {answer.verdict:14}  {text}")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: only to see that it runs.")] = False,
    only: Annotated[str | None, typer.Option(help="generators, steps, grid, text or warm: one part of it")] = None,
    out: Annotated[Path | None, typer.Option(help="a JSON file for the ratios")] = None,
    against: Annotated[Path | None, typer.Option(help="such a file: exit 1 where a ratio was better")] = None,
) -> None:
    """Print this machine's speed, as ratios against named peers.

    The peers train the same; with --against, no ratio may be lower than 0.9 of what it was.
    """
    from structure_first.bench.report import compared, former, measured

    if out is not None and out.is_dir():
        raise UserError(f"{out} is a folder; name a file with --out")
    before = former(against) if against else None
    ratios = measured(quick, only, out)
    if before is not None and not compared(ratios, before):
        raise typer.Exit(1)
