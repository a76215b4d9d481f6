"""The verb of the book."""

from typing import Annotated

import typer

from structure_first.verbs.common import Scale, app, checked_scale


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

    typer.echo(f"built {build(checked_scale(scale), chapter, edition=edition)}")
