"""The verbs of the book."""

from pathlib import Path
from typing import Annotated

import typer

from structure_first import scales
from structure_first.errors import UserError
from structure_first.verbs.common import Scale, app


@app.command()
def book(
    scale: Scale = "laptop",
    chapter: Annotated[str | None, typer.Option(help="the number of the one chapter to execute")] = None,
    edition: Annotated[str, typer.Option(help="full, or student: without solutions")] = "full",
) -> None:
    """Run the chapters and build the book.

    Its first page is book/_build/html/index.html.
    """
    from structure_first.book.build import build

    typer.echo(f"built {build(scales.checked(scale), chapter, edition=edition)}")


@app.command()
def slides(scale: Scale = "laptop") -> None:
    """Make slides from the marked cells of the chapters as they last ran.

    Their first page is book/_build/slides/index.html; they need no network.
    """
    from structure_first.book.slides import slides

    typer.echo(f"made {slides(scales.checked(scale))}")


@app.command()
def pdf(out: Annotated[Path, typer.Option(help="the file to write")] = Path("structure-first.pdf")) -> None:
    """Print the built book to one PDF, by an installed Chromium."""
    from structure_first.book.printed import printed

    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file with --out")
    typer.echo(f"printed {printed(out)}")
