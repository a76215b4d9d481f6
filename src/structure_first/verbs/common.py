"""What the verbs share: the application, checks of options, and how a mistake in them is said."""

from ast import literal_eval
from pathlib import Path
from typing import Annotated, Any

import typer

from structure_first import __version__
from structure_first.errors import unknown

MOST_SEEDS, MOST_WORKERS, MOST_PRICE, LAST_SEED = 10_000, 1_000, 1_000_000, 2**31 - 1
RESULTS = Path("book/results")  # of a checkout

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    suggest_commands=False,  # `usage` does
)

Scale = Annotated[str, typer.Option(help="smoke, laptop, gpu or paper")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Teach a language model structure before you teach it language, and measure what it gains."""
    if version:
        typer.echo(f"structure-first {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def usage(error: Any) -> str:  # of a class that typer keeps to itself
    """A usage error in one line, with the nearest verb or option."""
    if "No such command" in error.message:
        name = literal_eval(error.message.removeprefix("No such command ").removesuffix("."))  # as its repr
        return str(unknown("verb", name, error.ctx.command.commands))
    if error.message.startswith("No such option"):
        known = (option for parameter in error.ctx.command.params for option in parameter.opts)
        return str(unknown("option", error.option_name, known))
    return " ".join(error.format_message().split())
